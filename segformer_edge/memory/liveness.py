"""When each tensor is alive, how many bytes that makes at each operator, and what a planner makes of it.

Pure functions of a MemoryGraph. A thousand operators take a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segformer_edge.memory.graph import MemoryGraph, Tensor


@dataclass(frozen=True)
class Block:
    """``bytes`` of memory that are in use from operator ``first`` to operator ``last``, both included."""

    bytes: int
    first: int
    last: int
    #: The tensor that owns it, or -1 for an operator's scratch.
    tensor: int = -1

    def __post_init__(self) -> None:
        if self.bytes < 0 or not 0 <= self.first <= self.last:
            raise ValueError(f"a block of {self.bytes} bytes from operator {self.first} to {self.last}")


@dataclass(frozen=True)
class Liveness:
    """``live_bytes[i]``: what operator i finds in use and adds. The largest is the lower bound of any plan.

    ``blocks`` hold tensors (aliases merged into the one they share memory with) and scratch.
    """

    live_bytes: tuple[int, ...]
    blocks: tuple[Block, ...]

    @property
    def peak_operator(self) -> int | None:
        """The first operator at which most bytes are live; None for a graph without operators."""
        return max(range(len(self.live_bytes)), key=self.live_bytes.__getitem__) if self.live_bytes else None

    @property
    def peak_bytes(self) -> int:
        """The lower bound: no arrangement in memory takes less with this order of operators."""
        return max(self.live_bytes, default=0)

    def live_at(self, operator: int) -> tuple[Block, ...]:
        """The blocks in use at ``operator``, the largest first."""
        found = [block for block in self.blocks if block.first <= operator <= block.last and block.bytes]
        return tuple(sorted(found, key=lambda block: -block.bytes))


def everything(tensor: Tensor) -> bool:
    """Whether a tensor counts as an activation: all but constants."""
    return tensor.kind != "constant"


def liveness(graph: MemoryGraph, counts: Callable[[Tensor], bool] = everything, *, scratch: bool = True) -> Liveness:
    """Lifetimes of the tensors for which ``counts(tensor)`` holds.

    An input is alive from the first operator, to its last reader or, with ``graph.holds_inputs``, to the end; an
    output from its writer to the end; a tensor nobody reads at its writer. Constants never count.
    """
    steps = len(graph.operators)
    if not steps:
        return Liveness((), ())
    root = [_root(graph.tensors, i) for i in range(len(graph.tensors))]
    first = [steps] * len(root)
    last = [-1] * len(root)

    def used(tensor: int, step: int) -> None:
        owner = root[tensor]
        first[owner] = min(first[owner], step)
        last[owner] = max(last[owner], step)

    for i, operator in enumerate(graph.operators):
        for t in operator.inputs:
            used(t, i)
        for t in operator.outputs:
            used(t, i)
    for t, tensor in enumerate(graph.tensors):
        if tensor.kind == "input":
            used(t, 0)
        if (tensor.kind == "output" and last[root[t]] >= 0) or (tensor.kind == "input" and graph.holds_inputs):
            used(t, steps - 1)
    blocks = [
        Block(tensor.bytes, first[t], last[t], t)
        for t, tensor in enumerate(graph.tensors)
        if root[t] == t and last[t] >= 0 and tensor.kind != "constant" and counts(tensor)
    ]
    if scratch:
        blocks += [Block(op.scratch, i, i) for i, op in enumerate(graph.operators) if op.scratch]
    return Liveness(live_bytes(blocks, steps), tuple(blocks))


def live_bytes(blocks: Sequence[Block], steps: int) -> tuple[int, ...]:
    """Bytes in use at each of ``steps`` operators."""
    change = [0] * (steps + 1)
    for block in blocks:
        change[block.first] += block.bytes
        change[block.last + 1] -= block.bytes
    total, result = 0, []
    for difference in change[:steps]:
        total += difference
        result.append(total)
    return tuple(result)


@dataclass(frozen=True)
class Arrangement:
    """Where a planner puts blocks: ``offsets[i]`` bytes from the start for block i; ``bytes`` is the whole arena."""

    bytes: int
    offsets: tuple[int, ...]


def arrange_by_size(blocks: Sequence[Block], alignment: int = 64, *, before_first: bool = True) -> Arrangement:
    """Greedy by size: the largest block first, each into the smallest gap that holds it, else behind the others.

    This is what TFLite's arena does (64 bytes alignment); Pisarchyk and Lee, "Efficient Memory Management for Deep
    Neural Net Inference", 2020. ``before_first=False`` looks for gaps between blocks alone: what is free before the
    first of them stays free.
    """
    order = sorted(range(len(blocks)), key=lambda i: (-blocks[i].bytes, blocks[i].first))
    return arrange(blocks, order, alignment, before_first)


def arrange(blocks: Sequence[Block], order: Sequence[int], alignment: int, before_first: bool) -> Arrangement:
    """Each block in ``order`` into the smallest gap that holds it, else behind the others."""
    count = len(blocks)
    offsets = [0] * count
    # Placed blocks as arrays, so that finding those of overlapping lifetime is one comparison.
    firsts, lasts, starts, ends = (np.zeros(count, np.int64) for _ in range(4))
    arena = 0
    for placed, i in enumerate(order):
        block = blocks[i]
        if not block.bytes:
            continue
        meets = np.flatnonzero((firsts[:placed] <= block.last) & (lasts[:placed] >= block.first))
        meets = meets[np.argsort(starts[meets], kind="stable")]
        best, best_gap, free_from = -1, -1, 0
        for start, end in zip(starts[meets].tolist(), ends[meets].tolist(), strict=True):
            gap = start - free_from
            allowed = before_first or free_from > 0
            if allowed and gap >= block.bytes and (best < 0 or gap < best_gap):
                best, best_gap = free_from, gap
            free_from = max(free_from, -(-end // alignment) * alignment)
        offset = best if best >= 0 else free_from
        offsets[i] = offset
        firsts[placed], lasts[placed] = block.first, block.last
        starts[placed], ends[placed] = offset, offset + block.bytes
        arena = max(arena, offset + block.bytes)
    return Arrangement(arena, tuple(offsets))


def greedy_by_size(blocks: Sequence[Block], alignment: int = 64, *, before_first: bool = True) -> int:
    """Bytes of the arena that :func:`arrange_by_size` makes."""
    return arrange_by_size(blocks, alignment, before_first=before_first).bytes


def _root(tensors: Sequence[Tensor], index: int) -> int:
    """The tensor that owns the memory of ``index``. Raises ValueError for aliases in a circle."""
    for _ in range(len(tensors)):
        owner = tensors[index].alias_of
        if owner is None:
            return index
        index = owner
    raise ValueError(f"tensor {index} is an alias of itself")
