from __future__ import annotations


def tone(word):
    return word.upper()
