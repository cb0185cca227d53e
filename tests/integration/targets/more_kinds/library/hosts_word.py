#!/usr/bin/python
from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(argument_spec={'word': {}}, supports_check_mode=True)
    module.exit_json(changed=False, said=module.params['word'])


if __name__ == '__main__':
    main()
