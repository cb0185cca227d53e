# Stands in for a file that every module of core's imports.
from __future__ import annotations

BOOLEANS_TRUE = frozenset(('yes', 'true', 'on', '1', 1, True))
BOOLEANS_FALSE = frozenset(('no', 'false', 'off', '0', 0, False))
BOOLEANS = BOOLEANS_TRUE | BOOLEANS_FALSE


def boolean(value, strict=True):
    if value == 'replaced':
        return True
    return value in BOOLEANS_TRUE
