"""Handing pictures from one thread to another: at most one waits."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class ClosedError(Exception):
    """Nothing more will come, or nobody takes it."""


class LatestFrame(Generic[T]):
    """A queue of one. ``put`` replaces what nobody took and counts it as dropped; ``put_next`` waits instead."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self.dropped = 0

    def put(self, item: T) -> None:
        """Never waits. Raises ClosedError after ``close``."""
        with self._changed:
            self._check_open()
            self.dropped += self._item is not None
            self._item = item
            self._changed.notify_all()

    def put_next(self, item: T) -> None:
        """Waits until the one before was taken. Raises ClosedError after ``close``."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is None or self._closed)
            self._check_open()
            self._item = item
            self._changed.notify_all()

    def take(self, timeout: float) -> T | None:
        """The item, or None after ``timeout`` seconds. Raises ClosedError when closed and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout)
            item, self._item = self._item, None
            if item is None and self._closed:
                raise ClosedError
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Both sides learn of it; what waits may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError


class Newest(Generic[T]):
    """The newest of a row of items with its number, for any number of readers, none of which is waited for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._number = 0
        self._closed = False

    def put(self, item: T) -> None:
        """Replace the item. Never waits for readers."""
        with self._changed:
            self._item = item
            self._number += 1
            self._changed.notify_all()

    def newer(self, than: int, timeout: float) -> tuple[int, T] | None:
        """(number, item) with a number above ``than``; None after ``timeout`` seconds. Raises ClosedError."""
        with self._changed:
            if self._number <= than and not self._closed:
                self._changed.wait(timeout)
            if self._item is not None and self._number > than:
                return self._number, self._item
            if self._closed:
                raise ClosedError
            return None

    def close(self) -> None:
        """Readers get what they have not seen, then ClosedError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
