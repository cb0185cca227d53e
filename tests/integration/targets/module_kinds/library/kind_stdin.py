#!/usr/bin/python3
from __future__ import annotations

import sys

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(argument_spec={})
    print('printed before the result')
    sys.stderr.write('and on stderr\n')
    module.exit_json(changed=False, stdin=sys.stdin.read())


if __name__ == '__main__':
    main()
