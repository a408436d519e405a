"""Reading ONNX's protobuf without the onnx package, which a device does not have. Every length is checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from segformer_edge.errors import ArtifactError


@dataclass(frozen=True)
class Message:
    """One message: its bytes, fields by number on demand."""

    data: memoryview

    def fields(self) -> Iterator[tuple[int, int | memoryview]]:
        """(number, value) in the order of the file; numbers as unsigned integers, everything else as bytes."""
        at, end = 0, len(self.data)
        while at < end:
            key, at = self._varint(at)
            wire = key & 7
            if wire == 0:
                value, at = self._varint(at)
                yield key >> 3, value
                continue
            if wire == 2:
                length, at = self._varint(at)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise ArtifactError(f"damaged: it has a field of wire type {wire}")
            if at + length > end:
                raise ArtifactError(f"damaged: a field of {length} bytes reaches past the end")
            yield key >> 3, self.data[at : at + length]
            at += length

    def messages(self, number: int) -> list[Message]:
        """Every nested message in field ``number``."""
        return [Message(value) for key, value in self.fields() if key == number and isinstance(value, memoryview)]

    def texts(self, number: int) -> list[str]:
        """Every string in field ``number``."""
        return [bytes(message.data).decode("utf-8", "replace") for message in self.messages(number)]

    def text(self, number: int) -> str:
        """The string in field ``number``, "" where there is none."""
        return next(iter(self.texts(number)), "")

    def numbers(self, number: int) -> list[int]:
        """Every integer in field ``number``, packed or not."""
        found: list[int] = []
        for key, value in self.fields():
            if key != number:
                continue
            if isinstance(value, int):
                found.append(value)
                continue
            packed, at = Message(value), 0
            while at < len(value):
                entry, at = packed._varint(at)
                found.append(entry)
        return found

    def _varint(self, at: int) -> tuple[int, int]:
        return varint(self.data, at)


@dataclass
class Varints:
    """A bare row of numbers, read one after the other."""

    data: memoryview
    at: int = 0

    def next(self) -> int:
        """The next number."""
        value, self.at = varint(self.data, self.at)
        return value


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at byte ``at`` (seven bits a byte, the lowest first) and where the next one begins."""
    value = shift = 0
    while at < len(data) and shift < 70:
        octet = data[at]
        value |= (octet & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if octet < 0x80:
            return value & (2**64 - 1), at
    raise ArtifactError("damaged: a number is cut short")
