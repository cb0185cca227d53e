#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Whether this Python finds a package that lies in some home directory."""
from __future__ import annotations

import importlib.util

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule({})
    module.exit_json(found=importlib.util.find_spec('package_in_home') is not None)


if __name__ == '__main__':
    main()
