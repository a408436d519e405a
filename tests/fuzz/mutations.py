"""Damaged versions of a file: what bad disks, cut copies and people do to one."""

from __future__ import annotations

import random
import re
import struct

#: Numbers that offsets, sizes and indices are least ready for.
_EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MOST_CHANGES = 4


def mutated(content: bytes, random: random.Random) -> bytes:
    """``content`` with one to four changes; not empty, and not what it was."""
    while True:
        found = bytearray(content)
        for _ in range(random.randint(1, _MOST_CHANGES)):
            random.choice(_KINDS)(found, random)
        if found and bytes(found) != content:
            return bytes(found)


def _place(content: bytearray, random: random.Random) -> int:
    """Mostly near one of the ends, where headers and tables are; a network's bulk is weights."""
    if random.random() < 0.4:
        return random.randrange(len(content))
    distance = min(int(len(content) ** random.random()), len(content) - 1)
    return distance if random.random() < 0.5 else len(content) - 1 - distance


def _flip_bits(content: bytearray, random: random.Random) -> None:
    for _ in range(random.randint(1, 8)):
        content[_place(content, random)] ^= 1 << random.randrange(8)


def _set_byte(content: bytearray, random: random.Random) -> None:
    content[_place(content, random)] = random.randrange(256)


def _zero(content: bytearray, random: random.Random) -> None:
    start = _place(content, random)
    end = min(len(content), start + random.randint(1, 256))
    content[start:end] = bytes(end - start)


def _truncate(content: bytearray, random: random.Random) -> None:
    del content[max(1, _place(content, random)) :]


def _swap(content: bytearray, random: random.Random) -> None:
    size = random.randint(1, max(1, min(64, len(content) // 2)))
    first, second = (min(_place(content, random), len(content) - size) for _ in range(2))
    one, other = content[first : first + size], content[second : second + size]
    content[first : first + size], content[second : second + size] = other, one


def _number(content: bytearray, random: random.Random) -> None:
    """A 32-bit number at an aligned place, as flatbuffers have them, becomes an extreme or moves a little."""
    place = _place(content, random) & ~3
    if place + 4 <= len(content):
        (old,) = struct.unpack_from("<I", content, place)
        new = random.choice([*_EXTREMES, len(content), old + 4, old - 4, old + random.randint(-999, 999), old * 2])
        struct.pack_into("<I", content, place, new & 0xFFFFFFFF)


def _decimal(content: bytearray, random: random.Random) -> None:
    """A number in a text becomes another one."""
    start = _place(content, random)
    found = re.compile(rb"\d+").search(content, start, start + 400)
    if found is not None:
        old = int(found[0][:9])
        new = random.choice([*_EXTREMES, -1, old + 1, max(0, old - 1), old * 1000, random.randint(0, 2 * old + 1)])
        content[found.start() : found.end()] = str(new).encode()


def _repeat(content: bytearray, random: random.Random) -> None:
    start = _place(content, random)
    content[start:start] = content[start : start + random.randint(1, 64)]


_KINDS = (_flip_bits, _set_byte, _zero, _truncate, _swap, _number, _number, _decimal, _repeat)
