"""Keeps native libraries' greetings off the user's stderr while they load."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from segformer_edge.verbosity import is_verbose

#: Threads inside the block, and the descriptor that the last one out puts back.
_lock = threading.Lock()
_inside = 0
_saved = -1


@contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Send file descriptor 2 to the null device: C++ logs do not pass through Python's ``sys.stderr``.

    ExecuTorch reports missing CPU files of phones, LiteRT its delegate, torchao its GPU kernels, on every machine.
    Errors still arrive as exceptions. It affects the whole process, so keep the block short. Threads
    may be in it at the same time. With ``--verbose`` nothing is kept back.
    """
    if is_verbose():
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _saved
    with _lock:
        if _inside == 0:
            if sys.stderr is not None:
                sys.stderr.flush()
            try:
                _saved = os.dup(2)
            except OSError:  # no stderr at all, as in a daemon
                _saved = -1
            else:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 2)
                os.close(null)
        _inside += 1


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0 and _saved >= 0:
            os.dup2(_saved, 2)
            os.close(_saved)
