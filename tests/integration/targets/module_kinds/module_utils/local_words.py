from __future__ import annotations


def shout(word):
    return word.upper() + '!'
