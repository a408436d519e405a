"""Reading flatbuffers (.tflite, .pte, XNNPACK's graphs in them) without a schema compiler, and without trust.

Every offset is checked against the file, so a damaged file ends in ArtifactError. Field numbers are those of the
format's schema, in the order of its fields.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segformer_edge.errors import ArtifactError

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Table:
    """A table at ``at`` in ``data``."""

    data: Buffer
    at: int

    def scalar(self, field: int, form: str, default: Any = 0) -> Any:
        """Field number ``field`` as struct's ``form`` ("i", "I", "b", ...)."""
        place = self._place(field)
        return default if place is None else unpack(self.data, form, place)

    def table(self, field: int) -> Table | None:
        """A nested table, or None where it was left out."""
        place = self._place(field)
        return None if place is None else Table(self.data, _follow(self.data, place))

    def text(self, field: int) -> str:
        """A string; "" where it was left out."""
        return bytes(self.octets(field)).decode("utf-8", "replace")

    def octets(self, field: int) -> memoryview:
        """A vector of bytes (or a string), not copied."""
        start, count = self._vector(field, 1)
        return memoryview(self.data)[start : start + count]

    def numbers(self, field: int, form: str) -> tuple[Any, ...]:
        """A vector of numbers of struct's ``form``."""
        start, count = self._vector(field, struct.calcsize(f"<{form}"))
        return struct.unpack_from(f"<{count}{form}", self.data, start)

    def tables(self, field: int) -> Sequence[Table]:
        """A vector of tables."""
        start, count = self._vector(field, 4)
        return [Table(self.data, _follow(self.data, start + 4 * i)) for i in range(count)]

    def _place(self, field: int) -> int | None:
        vtable = self.at - unpack(self.data, "i", self.at)
        if 4 + 2 * field + 2 > unpack(self.data, "H", vtable):
            return None
        offset = unpack(self.data, "H", vtable + 4 + 2 * field)
        return self.at + offset if offset else None

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        place = self._place(field)
        if place is None:
            return 0, 0
        start = _follow(self.data, place)
        count = unpack(self.data, "I", start)
        if start + 4 + count * width > len(self.data):
            raise ArtifactError(f"damaged: a list of {count} entries at byte {start} reaches past the end")
        return start + 4, count


def root_table(data: Buffer) -> Table:
    """The outermost table."""
    return Table(data, _follow(data, 0))


def unpack(data: Buffer, form: str, at: int) -> Any:
    """One little-endian number at byte ``at``. Raises ArtifactError outside ``data``."""
    if at < 0 or at + struct.calcsize(f"<{form}") > len(data):
        raise ArtifactError(f"damaged: it points to byte {at} of {len(data)}")
    return struct.unpack_from(f"<{form}", data, at)[0]


def _follow(data: Buffer, place: int) -> int:
    return place + int(unpack(data, "I", place))
