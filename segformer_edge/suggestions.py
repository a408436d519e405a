"""The nearest of a few names to what was typed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The one of ``choices`` that ``word`` was probably meant to be, or None."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``"Did you mean 'tflite'?"``, or the list of choices where none is near."""
    names = list(choices)
    found = nearest(word, names)
    return f"Did you mean '{found}'?" if found else f"Choose one of: {', '.join(names)}."
