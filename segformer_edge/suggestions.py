"""The nearest of a few names to what was typed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: Below this a suggestion is more often nonsense than help: "--bogus" is no slip of "--out".
_CUTOFF = 0.65


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The one of ``choices`` that ``word`` was probably meant to be, or None.

    The dashes before an option and the dot before a suffix, which all have, make nothing alike.
    """
    by_lower = {_bare(choice): choice for choice in choices}
    found = difflib.get_close_matches(_bare(word), by_lower, n=1, cutoff=_CUTOFF)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``"Did you mean 'tflite'?"``, or the list of choices where none is near."""
    names = list(choices)
    found = nearest(word, names)
    return f"Did you mean '{found}'?" if found else f"Choose one of: {', '.join(names)}."


def _bare(name: str) -> str:
    return name.lower().lstrip("-.")
