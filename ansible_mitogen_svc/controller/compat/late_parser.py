# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Makes the argument parser of core's ssh connections when it is used, which it hardly ever is.

Installed by `caches.py` as the ``argparse`` of ansible.plugins.connection.ssh, whose `Connection.__init__` makes a
parser with two arguments for each task (and looks up translations for its help). Each connection has its own, in one
thread.
"""

from __future__ import annotations

import functools
from typing import Any


class LateParser:
    """An ArgumentParser that is made, with the arguments it was given until then, by the first other use.

    :param factory: ``argparse.ArgumentParser``; `arguments` and `keywords` are its.
    """

    def __init__(self, factory: Any, *arguments: Any, **keywords: Any) -> None:
        self._make = functools.partial(factory, *arguments, **keywords)
        self._added: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._parser: Any = None

    def add_argument(self, *arguments: Any, **keywords: Any) -> None:
        """As ArgumentParser's, but that it returns nothing."""
        self._added.append((arguments, keywords))

    def __getattr__(self, name: str) -> Any:
        if self._parser is None:
            self._parser = self._make()
            for arguments, keywords in self._added:
                self._parser.add_argument(*arguments, **keywords)
        return getattr(self._parser, name)


class LateArgparse:
    """The module `argparse`, whose parsers are late ones."""

    def __init__(self, argparse: Any) -> None:
        self._argparse = argparse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._argparse, name)

    def ArgumentParser(self, *arguments: Any, **keywords: Any) -> LateParser:
        """Stands for the class of that name."""
        return LateParser(self._argparse.ArgumentParser, *arguments, **keywords)
