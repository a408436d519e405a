"""A flatbuffer verifier over schemas as data, after flatbuffers' own (verifier.h): bounds, alignment, vtables, ends.

A schema is table name -> its fields in the schema's order. A field is a letter of struct for a number, "text", a
table's name, either in brackets for a vector of them, or a Union, whose type is the field before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from segformer_edge.errors import ArtifactError
from segformer_edge.memory.flatbuffer import Buffer, unpack

_WIDTHS = {letter: struct.calcsize(f"<{letter}") for letter in "bBhHiIqQfd"}
_TEXT = "text"


@dataclass(frozen=True)
class Union:
    """Number of the type -> table. What is not listed is a table of numbers alone, as far as we know."""

    tables: Mapping[int, str] = field(default_factory=dict)


Schema = Mapping[str, tuple[str | Union, ...]]
#: A table of which only the outer form is known.
OPAQUE = ""


def verify(data: Buffer, schema: Schema, root: str) -> None:
    """Raise ArtifactError unless ``data`` is a flatbuffer whose ``root`` and all under it obey ``schema``.

    Fields behind those in the schema, which a newer version may have added, are only looked at from outside. Tables are
    visited once, so that a file whose offsets go in circles ends too.
    """
    walk = _Walk(data, schema)
    waiting, seen = [(root, walk.target(0, "the root"))], set()
    while waiting:
        entry = waiting.pop()
        if entry not in seen:
            seen.add(entry)
            waiting += walk.table(*entry)


class _Walk:
    def __init__(self, data: Buffer, schema: Schema) -> None:
        self.data, self.schema = data, schema

    def table(self, name: str, at: int) -> Iterator[tuple[str, int]]:
        """Check the table at byte ``at`` and give the tables that it names."""
        what = f"table {name or 'of options'} at byte {at}"
        if at % 4:
            raise _damaged(what, "is not aligned")
        vtable = at - unpack(self.data, "i", at)
        length = unpack(self.data, "H", vtable)
        # What stands there for the table's own size is not to be believed: flatc writes some too small.
        if vtable % 2 or length < 4 or length % 2 or vtable + length > len(self.data):
            raise _damaged(what, "has no description")
        places = struct.unpack_from(f"<{length // 2 - 2}H", self.data, vtable + 4)
        if any(0 < place < 4 or at + place >= len(self.data) for place in places):
            raise _damaged(what, "has a field outside of it")
        kind = 0
        for number, form in enumerate(self.schema.get(name, ())[: len(places)]):
            place, where = places[number], f"field {number} of {what}"
            if isinstance(form, str) and form in _WIDTHS:
                self._inside(at, place, _WIDTHS[form], where)
                kind = unpack(self.data, form, at + place) if place else 0
            elif place:
                self._inside(at, place, 4, where)
                yield from self._named(form, kind, self.target(at + place, where), where)

    def target(self, place: int, what: str) -> int:
        """Where the offset at byte ``place`` leads."""
        offset = unpack(self.data, "I", place)
        if not offset or place + offset > len(self.data) - 4:
            raise _damaged(what, f"points to byte {place + offset} of {len(self.data)}")
        return place + offset

    def _named(self, form: str | Union, kind: int, at: int, what: str) -> Iterator[tuple[str, int]]:
        if isinstance(form, Union):
            if kind:
                yield form.tables.get(kind, OPAQUE), at
        elif form == _TEXT:
            self._text(at, what)
        elif not form.startswith("["):
            yield form, at
        elif (element := form[1:-1]) in _WIDTHS:
            self._vector(at, _WIDTHS[element], what)
        else:
            for place in range(at + 4, at + 4 + 4 * self._vector(at, 4, what), 4):
                target = self.target(place, what)
                if element == _TEXT:
                    self._text(target, what)
                else:
                    yield element, target

    def _vector(self, at: int, width: int, what: str) -> int:
        count: int = unpack(self.data, "I", at)
        if at % 4 or (at + 4) % width:
            raise _damaged(what, "is not aligned")
        if at + 4 + count * width > len(self.data):
            raise _damaged(what, f"has {count} entries, which reach past the end")
        return count

    def _text(self, at: int, what: str) -> None:
        end = at + 4 + self._vector(at, 1, what)
        if end >= len(self.data) or self.data[end]:
            raise _damaged(what, "is a text without an end")

    def _inside(self, at: int, place: int, width: int, what: str) -> None:
        if place and (at + place + width > len(self.data) or (at + place) % width):
            raise _damaged(what, "is cut short or not aligned")


def _damaged(what: str, how: str) -> ArtifactError:
    return ArtifactError(f"damaged: {what} {how}")
