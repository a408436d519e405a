"""Keeps native libraries' greetings off the user's stderr while they load."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Send file descriptor 2 to the null device: C++ logs do not pass through Python's ``sys.stderr``.

    ExecuTorch reports missing CPU files of phones, LiteRT its delegate, torchao its GPU kernels, on every machine.
    Errors still arrive as exceptions. It affects the whole process, so keep the block short.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all, as in a daemon
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
