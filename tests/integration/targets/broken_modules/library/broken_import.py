#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
import nothing_of_this_name
