"""Numbers for the tensors of a file that let XNNPACK pack its workspace better.

XNNPACK places the largest tensor first, each into the smallest gap that holds it. Bands of one network give many
tensors of equal size; of these it takes first what has the lowest number in the file, and the order decides what gaps
are left. Numbers mean nothing else, so they are chosen here: from the order of first use, tensors of equal size change
places where the workspace does not grow by it, again and again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from segformer_edge.export.tflite_graph import EmittedGraph
from segformer_edge.export.tflite_memory import Setup, workspace_blocks
from segformer_edge.memory.liveness import Block, live_bytes
from segformer_edge.memory.xnnpack import workspace

#: Changes that are tried: a hundredth of a second each for a thousand operators.
ATTEMPTS = 800
#: How far from the workspace's end a tensor may reach that changes its place, as shares of it.
_NEAR = (0.0, 0.02, 0.06)


def with_packed_workspace(graph: EmittedGraph, setup: Setup, attempts: int | None = None) -> EmittedGraph:
    """``graph`` with its tensors numbered so that XNNPACK's workspace is small; the same each time."""
    blocks, owners = workspace_blocks(graph, setup)
    ranks = _packed(blocks, setup.fills_front, ATTEMPTS if attempts is None else attempts)
    rank = {owner: each for owner, each in zip(owners, ranks, strict=True) if owner is not None}
    tensors = list(graph.tensors())
    places = sorted(range(len(tensors)), key=lambda i: rank.get(tensors[i], i))
    return replace(graph, numbering=[tensors[i] for i in places])


def _packed(blocks: Sequence[Block], fills_front: bool, attempts: int) -> list[float]:
    """A rank for each block."""
    chance, ranks = random.Random(0), [float(block.tensor) for block in blocks]
    alike: dict[int, list[int]] = {}
    for i, block in enumerate(blocks):
        if block.tensor >= 0:
            alike.setdefault(block.bytes, []).append(i)
    movable = [i for group in alike.values() if len(group) > 1 for i in group]
    best = workspace(blocks, fills_front, ranks)
    least = max(live_bytes(blocks, 1 + max((block.last for block in blocks), default=0)), default=0)
    for _ in range(attempts if movable else 0):
        if best.bytes <= least:
            break
        bound = best.bytes * (1 - chance.choice(_NEAR))
        last = [i for i, offset in enumerate(best.offsets) if offset + blocks[i].bytes >= bound]
        changed = list(ranks)
        for _ in range(chance.choice((1, 1, 2, 3))):
            i = chance.choice(last)
            if i not in movable or chance.random() < 0.6:  # what stands in its way moves
                i = chance.choice([j for j in movable if _meet(blocks[i], blocks[j])] or movable)
            j = chance.choice(alike[blocks[i].bytes])
            if chance.random() < 0.5:
                changed[i], changed[j] = changed[j], changed[i]
            else:
                changed[i] = changed[j] + chance.uniform(-0.5, 0.5)
        placed = workspace(blocks, fills_front, changed)
        if placed.bytes <= best.bytes:
            best, ranks = placed, changed
    return ranks


def _meet(one: Block, other: Block) -> bool:
    """Whether both are in use at some operator."""
    return one.first <= other.last and other.first <= one.last
