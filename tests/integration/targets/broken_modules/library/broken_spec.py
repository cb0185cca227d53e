#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
if __name__ == "__main__":
    AnsibleModule(argument_spec={"a": {"type": "nosuch"}}).exit_json()
