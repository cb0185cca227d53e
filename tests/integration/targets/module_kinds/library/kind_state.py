#!/usr/bin/python3
"""Leaves traces in its process: a second run must not see them."""
from __future__ import annotations

import os
import sys

from ansible.module_utils import basic


def main():
    module = basic.AnsibleModule(argument_spec={'name': {}})
    seen = [getattr(basic, 'trace', None), os.environ.get('TRACE'), os.getcwd(), os.umask(0o022)]
    basic.trace = 'left'
    os.environ['TRACE'] = 'left'
    os.chdir('/usr')
    os.umask(0o077)
    sys.path.insert(0, '/left')
    module.exit_json(seen=seen, in_path='/left' in sys.path[1:])


if __name__ == '__main__':
    main()
