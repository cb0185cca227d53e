# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Where a Python that starts now would look for packages, when that is not where this zygote looks.

The zygote asks whether it changed, and each nursery follows it before it imports anything; single-threaded.

Theory of operation
1. A Python reads at its start which directories of packages exist, the user's own among them, and the `.pth` files in
   them, which add others. Core starts one for each module, and finds what the task before has installed: in a
   user's directory that was not there yet, or behind a new `.pth` file.
2. `SitePlaces` notes what there was when the zygote started. Directories are listed again when they have changed; the
   files that count are looked at each time.
3. A nursery that is forked after a change does what the start of a Python does, by the functions of `site`: after the
   standard library's own places come those of the user, then the others, with whatever their `.pth` files say.
4. Places that `site` does not name were added by somebody else (sitecustomize), and are kept behind the others.
"""

from __future__ import annotations

import os
import sys

from ansible_mitogen_svc.target.account import signature_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_READ_AT_START = ('.pth', 'sitecustomize.py', 'usercustomize.py')


class SitePlaces:
    """What this process's Python read at its start, to be compared with what there is now."""

    def __init__(self) -> None:
        self._listed: dict[str, tuple[Any, list[str]]] = {}
        self._directories = _directories()
        self._start = self.read_at_start()

    def read_at_start(self) -> tuple[Any, ...]:
        """Return what tells that a Python would read something else at its start than before."""
        return tuple(self._signature(directory) for directory in self._directories)

    def _signature(self, directory: str) -> Any:
        now = signature_of(directory)
        known = self._listed.get(directory)
        if known is None or known[0] != now:
            known = self._listed[directory] = now, _listed(directory)
        return now is not None, [(path, signature_of(path)) for path in known[1]]

    def follow(self) -> None:
        """Look where a new Python would look, from now on, if that is somewhere else. In a nursery."""
        if self.read_at_start() != self._start:
            _read_anew()


def _listed(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [os.path.join(directory, name) for name in names if name.endswith(_READ_AT_START)]


def _directories() -> list[str]:
    """Return the directories that `site` looks at, whether they exist or not."""
    site: Any = sys.modules.get('site')
    if site is None or sys.flags.no_site or not hasattr(site, 'getsitepackages'):
        return []
    own = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [path for path in [*own, *site.getsitepackages()] if isinstance(path, str)]


def _read_anew() -> None:
    site: Any = sys.modules['site']
    before = list(sys.path)
    library = os.path.dirname(os.__file__)
    places = (library, os.path.join(library, 'lib-dynload'))
    ends = [number for number, path in enumerate(before, 1) if path in places]
    sys.path[:] = before[:max(ends, default=len(before))]
    known = site.removeduppaths()
    if site.ENABLE_USER_SITE:
        known = site.addusersitepackages(known)
    site.addsitepackages(known)
    sys.path += [path for path in before if path not in sys.path]
    sys.path_importer_cache.clear()
