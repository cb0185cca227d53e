#!/usr/bin/python
from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rig.moved.plugins.module_utils.tone import tone


def main():
    module = AnsibleModule(argument_spec={'word': {'required': True}})
    module.exit_json(changed=False, said=tone(module.params['word']), name=__name__)


if __name__ == '__main__':
    main()
