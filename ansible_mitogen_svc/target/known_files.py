# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Digests of large files that were computed while the files came, so that a module need not read them again.

Called by child.py in a job's process, before its module. ansible-core's copy module hashes what it was brought twice,
sha1 and md5; both are known to the agent (files.py), and the controller hands them to the job with the file's version.
A file that is not that version any more is read as ever.
"""

from __future__ import annotations

import os
import sys

from ansible_mitogen_svc.wire.file_version import version_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def tell(files: Sequence[Mapping[str, Any]]) -> None:
    """Let core's `AnsibleModule.digest_from_file` know files: `path`, `version` and `digests` of each."""
    basic: Any = sys.modules.get('ansible.module_utils.basic')
    if not files or basic is None:
        return
    known = {os.path.realpath(file['path']): (file['version'], file['digests']) for file in files}
    core = basic.AnsibleModule.digest_from_file

    def digest_from_file(self: Any, filename: Any, algorithm: Any) -> Any:
        version, digests = known.get(os.path.realpath(os.fsdecode(filename)), (None, {}))
        if isinstance(algorithm, str) and algorithm in digests and _version(filename) == version:
            return digests[algorithm]
        return core(self, filename, algorithm)

    basic.AnsibleModule.digest_from_file = digest_from_file


def _version(path: Any) -> list[int] | None:
    try:
        return version_of(os.stat(path))
    except OSError:
        return None
