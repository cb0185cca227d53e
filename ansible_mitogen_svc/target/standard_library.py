# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What modules import of Python's standard library, imported before they run.

Called by a nursery when it is given code to hold for its children; single-threaded.

A child imports what its module imports at its top, each time anew: `glob` costs `command` as much as its own work. So
the nursery looks which imports a module's code begins with, and makes those of them that are in QUIET: their import has
no effects beside itself, says nothing (deprecated modules warn whoever imports them), and leaves nothing that a forked
process must not share. Before Python 3.13 `uuid` does: it has `platform` remember the name of the host. Names with dots
are left alone: what they add to a package could hide a module's own omission.
"""

from __future__ import annotations

import importlib
from opcode import opmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

QUIET = frozenset((
    'argparse', 'array', 'base64', 'binascii', 'bisect', 'bz2', 'calendar', 'configparser', 'csv', 'decimal',
    'difflib', 'filecmp', 'fnmatch', 'getpass', 'glob', 'gzip', 'heapq', 'hmac', 'ipaddress', 'lzma', 'mmap',
    'numbers', 'optparse', 'pprint', 'pty', 'queue', 'secrets', 'shlex', 'shutil', 'string', 'tarfile', 'textwrap',
    'unicodedata', 'zipfile',
))


def import_ahead(code: CodeType) -> None:
    """Import what a module's code is going to import."""
    for name in imported(code):
        if name in QUIET:
            try:
                importlib.import_module(name)
            except Exception:  # noqa: S110  a Python without it; the module will say so
                pass


def imported(code: CodeType) -> Iterator[str]:
    """Yield the names that stand in import statements outside of functions and classes."""
    argument = 0
    for operation, low in zip(code.co_code[::2], code.co_code[1::2]):
        argument = argument << 8 | low
        if operation == opmap['IMPORT_NAME']:
            yield code.co_names[argument]
        if operation != opmap['EXTENDED_ARG']:
            argument = 0
