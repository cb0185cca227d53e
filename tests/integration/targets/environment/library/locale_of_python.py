#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What decides how this Python reads and writes text."""
from __future__ import annotations

import locale
import os
import sys

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule({})
    module.exit_json(utf8_mode=sys.flags.utf8_mode, encoding=locale.getpreferredencoding(),
                     lc_ctype=os.environ.get('LC_CTYPE'))


if __name__ == '__main__':
    main()
