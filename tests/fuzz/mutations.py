"""Damaged versions of a file: what bad disks, cut copies and people do to one."""

from __future__ import annotations

import json
import random
import re
import struct
from typing import Any

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


def mutated_json(content: bytes, random: random.Random) -> bytes | None:
    """``content`` with one value of its JSON replaced, dropped, doubled or moved; None where it is no JSON."""
    try:
        value = json.loads(content)
        return json.dumps(_changed(value, random)).encode()
    except (ValueError, RecursionError):
        return None


def _changed(value: Any, random: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or random.random() < 0.15:
        return random.choice(_VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = random.choice(keys)
    chance = random.random()
    if chance < 0.7:
        value[key] = _changed(value[key], random)
    elif chance < 0.8:
        del value[key]
    elif isinstance(value, list):
        value.append(value[key])
    else:
        value[random.choice(["", "..", "a/b", "0", "\0", *map(str, keys)])] = value[key]
    return value


_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 256, 1 << 31, 1 << 63, 10**400, 0.5, -0.5, 1e308, 1e-320, float("nan"),
    float("inf"), "", "x", "..", "../x", "/etc/passwd", "a\nb", "\0", "\ud800", "0" * 64, [], {}, [[]], [None], [1] * 4,
    ["x"], {"x": None}, {"0": "x"},
)  # fmt: skip
