# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Ansible module of ``ansible-mitogen-svc clean``: removes the effective user's module cache. Runs on a host.

Only a real directory of that name that belongs to this user goes, and what is in it; links in it are not followed.
target/private_place.py says where it is.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """Entry point; `path`, `files` and `bytes` of the result tell what went."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    home = pwd.getpwuid(os.geteuid()).pw_dir
    path = os.path.join(os.path.realpath(home), ".cache", "ansible_mitogen_svc")
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        module.exit_json(changed=False, path=path, files=0, bytes=0)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        module.fail_json(msg=f"{path} is not a directory of this user; it was left alone")
    sizes = [
        os.lstat(os.path.join(directory, name)).st_size
        for directory, _directories, names in os.walk(path)
        for name in names
    ]
    if not module.check_mode:
        try:
            shutil.rmtree(path)
        except OSError as error:
            module.fail_json(msg=f"could not remove {path}: {error}")
    module.exit_json(changed=True, checked=module.check_mode, path=path, files=len(sizes), bytes=sum(sizes))


if __name__ == "__main__":
    main()
