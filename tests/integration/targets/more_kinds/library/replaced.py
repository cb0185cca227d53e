#!/usr/bin/python
from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule, boolean
from ansible.module_utils.splitter import split_args


def main():
    module = AnsibleModule(argument_spec={'a': {}, 'flag': {'type': 'bool', 'default': 'replaced'}})
    module.exit_json(changed=False, flag=module.params['flag'], split=split_args('a b'), mark=boolean('replaced'))


if __name__ == '__main__':
    main()
