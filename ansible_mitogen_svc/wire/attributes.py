# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Extended attributes of a file that takes another one's place: SELinux context, ACL, whatever a user put there.

Used by both ends of a file transfer, each as the end that writes.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Path = Union[str, bytes]


_ACL = 'system.posix_acl_access'
"""The only one that a new file inherits, of its directory."""


def copy_attributes(source: Path, descriptor: int) -> None:
    """Give an open new file those of another one, and no ACL beside them. Raises OSError: it cannot be done."""
    try:
        names = os.listxattr(source)
    except (OSError, AttributeError):
        return  # a file system, or a Python, that has none
    if _ACL not in names:
        _remove(descriptor, _ACL)
    for name in names:
        value = os.getxattr(source, name)
        if value != _attribute(descriptor, name):
            os.setxattr(descriptor, name, value)


def _attribute(descriptor: int, name: str) -> bytes | None:
    try:
        return os.getxattr(descriptor, name)
    except OSError:
        return None


def _remove(descriptor: int, name: str) -> None:
    try:
        os.removexattr(descriptor, name)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
