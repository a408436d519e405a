"""Where to put blocks of memory so that an arena is small: several greedy orders, then a search from the best.

Greedy orders: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020. The search moves a
block that lies at the arena's end before one that stands in its way, and keeps what is no worse.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segformer_edge.memory.liveness import Arrangement, Liveness

Integers = npt.NDArray[np.int64]

#: Attempts of the search. Each takes some tens of milliseconds for a thousand operators.
ATTEMPTS = 150


class _Blocks:
    """Lifetimes and sizes as arrays; sizes in whole steps of the alignment."""

    def __init__(self, found: Liveness, alignment: int) -> None:
        self.first = np.array([block.first for block in found.blocks], np.int64)
        self.last = np.array([block.last for block in found.blocks], np.int64)
        self.size = np.array([-(-block.bytes // alignment) * alignment for block in found.blocks], np.int64)

    def placed(self, order: Sequence[int]) -> Integers:
        """Offsets when each block in ``order`` goes to the lowest place that is free as long as it lives."""
        offsets = np.zeros(len(self.size), np.int64)
        first, last, starts, ends = (np.zeros(len(order), np.int64) for _ in range(4))
        for count, i in enumerate(order):
            meets = np.flatnonzero((first[:count] <= self.last[i]) & (last[:count] >= self.first[i]))
            if len(meets):
                meets = meets[np.argsort(starts[meets], kind="stable")]
                free = np.concatenate(([0], np.maximum.accumulate(ends[meets])))
                gaps = np.concatenate((starts[meets], [np.iinfo(np.int64).max])) - free
                offsets[i] = free[np.argmax(gaps >= self.size[i])]
            first[count], last[count] = self.first[i], self.last[i]
            starts[count], ends[count] = offsets[i], offsets[i] + self.size[i]
        return offsets

    def top(self, offsets: Integers) -> int:
        """Bytes of the arena."""
        return int((offsets + self.size).max(initial=0))

    def orders(self) -> list[list[int]]:
        """By size, by lifetime, and by both."""
        lifetime = 1 + self.last - self.first
        keys = ((self.first, -self.size), (self.first, -self.size, -lifetime), (-self.size * lifetime,))
        return [np.lexsort(key).tolist() for key in keys]

    def moved(self, order: list[int], offsets: Integers, chance: random.Random) -> list[int]:
        """``order`` with each block at the arena's end before one that was placed earlier and is in its way."""
        order = list(order)
        for i in np.flatnonzero(offsets + self.size == self.top(offsets)).tolist():
            place = order.index(i)
            earlier = np.array(order[:place], np.int64)
            conflicts = np.flatnonzero((self.first[earlier] <= self.last[i]) & (self.last[earlier] >= self.first[i]))
            if len(conflicts):
                order.insert(int(chance.choice(conflicts.tolist())), order.pop(place))
        return order


def pack(found: Liveness, alignment: int, attempts: int = ATTEMPTS) -> Arrangement:
    """An arena for all blocks of ``found``, offsets in multiples of ``alignment`` bytes; the same each time."""
    blocks, chance = _Blocks(found, alignment), random.Random(0)
    candidates = [(order, blocks.placed(order)) for order in blocks.orders()]
    order, offsets = min(candidates, key=lambda each: blocks.top(each[1]))
    lowest = max(live_bytes_aligned(found, blocks.size), default=0)
    for _ in range(attempts):
        if blocks.top(offsets) <= lowest:
            break
        other = blocks.moved(order, offsets, chance)
        placed = blocks.placed(other)
        if blocks.top(placed) <= blocks.top(offsets):
            order, offsets = other, placed
    return Arrangement(blocks.top(offsets), tuple(offsets.tolist()))


def live_bytes_aligned(found: Liveness, sizes: Integers) -> list[int]:
    """Bytes in use at each operator with blocks of ``sizes``: no arrangement takes less than the largest."""
    change = np.zeros(len(found.live_bytes) + 1, np.int64)
    for block, size in zip(found.blocks, sizes.tolist(), strict=True):
        change[block.first] += size
        change[block.last + 1] -= size
    lived: list[int] = np.cumsum(change)[:-1].tolist()
    return lived
