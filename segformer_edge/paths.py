"""Paths that a user typed, which need not be any."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from segformer_edge.errors import UsageError


def user_path(text: str | os.PathLike[str]) -> Path:
    """``text`` with ``~`` as the home folder. Raises UsageError where the system takes no such path.

    Such are ``~nobody/x``, names of over 255 bytes, a loop of links, a NUL.
    """
    try:
        path = Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        shown = os.fspath(text)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise UsageError(f"'{shown}' cannot be a path: {why}.") from None
    return path
