from __future__ import annotations


def louder(word):
    return word.upper() + '!'
