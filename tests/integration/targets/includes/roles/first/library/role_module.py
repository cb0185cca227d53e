from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rolewords import louder


def main():
    module = AnsibleModule(argument_spec={'word': {'required': True}}, supports_check_mode=True)
    module.exit_json(changed=False, said=louder(module.params['word']))


if __name__ == '__main__':
    main()
