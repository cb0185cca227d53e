#!/usr/bin/python
from __future__ import annotations

import os
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.local_words import shout


def main():
    module = AnsibleModule(argument_spec={'word': {'type': 'str'}, 'items': {'type': 'list', 'elements': 'int'},
                                          'secret': {'no_log': True}}, supports_check_mode=False)
    module.warn('a warning of the module')
    module.deprecate('something old', version='99.0', collection_name='ansible.builtin')
    module.exit_json(changed=True, said=shout(module.params['word'] or ''), cwd=os.getcwd(), argv=sys.argv[1:],
                     main=__name__, secret=module.params['secret'], tmpdir_exists=os.path.isdir(module.tmpdir))


if __name__ == '__main__':
    main()
