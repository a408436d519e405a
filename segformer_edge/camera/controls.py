"""What the user may change while the program runs: start and stop, opacity, which classes are shown."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from segformer_edge.errors import UsageError


@dataclass(frozen=True)
class View:
    """How a label map is laid over its picture. One view for the window, the page and the recording."""

    opacity: float = 0.5
    #: Classes whose pixels show the picture alone.
    hidden: frozenset[int] = frozenset()


class Controls:
    """Shared by all threads; each property is safe to read at any time."""

    def __init__(self, classes: int, opacity: float) -> None:
        self._classes = classes
        self._lock = threading.Lock()
        self._view = View(opacity)
        self._running = threading.Event()
        self._running.set()
        #: Set when the program ends: every thread looks at it.
        self.ended = threading.Event()

    @property
    def view(self) -> View:
        """The view as it is now."""
        return self._view

    @property
    def running(self) -> bool:
        """Whether pictures are taken."""
        return self._running.is_set()

    def wait_running(self, timeout: float) -> bool:
        """Wait for the start, at most ``timeout`` seconds; whether it came."""
        return self._running.wait(timeout)

    def set_running(self, running: bool) -> None:
        """Start or stop taking pictures."""
        (self._running.set if running else self._running.clear)()

    def change(self, wish: Mapping[str, Any]) -> None:
        """Apply what a page sends: any of ``running``, ``opacity`` (0 to 1) and ``hidden`` (class numbers).

        Raises UsageError for anything else; then nothing is changed.
        """
        if not isinstance(wish, dict) or not wish.keys() <= {"running", "opacity", "hidden"}:
            raise UsageError("A change has the keys running, opacity and hidden alone.")
        running, opacity, hidden = wish.get("running"), wish.get("opacity"), wish.get("hidden")
        with self._lock:
            view = self._view
            if opacity is not None:
                if isinstance(opacity, bool) or not isinstance(opacity, int | float) or not 0 <= opacity <= 1:
                    raise UsageError("opacity is a number between 0 and 1.")
                view = replace(view, opacity=float(opacity))
            if hidden is not None:
                if not isinstance(hidden, list) or not all(type(c) is int and 0 <= c < self._classes for c in hidden):
                    raise UsageError(f"hidden is a list of class numbers, 0 to {self._classes - 1}.")
                view = replace(view, hidden=frozenset(hidden))
            if running is not None:
                if not isinstance(running, bool):
                    raise UsageError("running is true or false.")
                self.set_running(running)
            self._view = view
