from __future__ import annotations


def split_args(args):
    return ['replaced', args]
