"""From an SRAM budget to a tiling: the coarsest with which the compiler keeps to it.

The compiler cascades operators of its own, so what it needs is known only when it has compiled. Tilings that the
liveness model puts far beyond the budget are passed over.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

from segformer_edge.ethos_u.lowering import KERNELS, Compiler, npu_graph
from segformer_edge.export.exporter import Plan
from segformer_edge.export.planner import PIECES, Way, tiling_for
from segformer_edge.export.tflite_memory import BUILT_IN, forecast
from segformer_edge.model.config import STRIDE
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling

_WAY = Way("arena", BUILT_IN, KERNELS)
#: The compiler has needed no less than this share of the liveness model's arena.
_LEAST_SHARE = 0.7
#: So many tilings in a row that need more than the best end a search.
_PATIENCE = 2
#: A product of int16 probabilities.
_SCORE_BYTES = 2


def plan(compiler: Compiler, network: EdgeSegFormer, size: tuple[int, int], budget: int) -> Plan:
    """The first tiling that fits, or the best one, and the size that would fit with it; ``network`` stays untiled."""
    best: Plan | None = None
    worse = 0
    for tiling in tilings(network, size):
        found = _try(compiler, network, tiling, size, budget, skip=True)
        if found is None:
            continue
        if found.fits:
            return found
        if best is None or found.forecast < best.forecast:
            best, worse = found, 0
        else:
            worse += 1
        if worse == _PATIENCE:
            break
    if best is None:  # the model put every tiling beyond the budget
        for tiling in tilings(network, size):
            finest = tiling
        best = _try(compiler, network, finest, size, budget, skip=False)
        assert best is not None
    return replace(best, largest_size=_largest(compiler, network, best.tiling, size, budget))


def tilings(network: EdgeSegFormer, size: tuple[int, int]) -> Iterator[Tiling]:
    """From untiled to the finest, each once."""
    seen = Tiling()
    yield seen
    for piece in PIECES:
        tiling = tiling_for(network.config, size, piece, _WAY, _SCORE_BYTES)
        if tiling != seen:
            seen = tiling
            yield tiling


def _try(
    compiler: Compiler, network: EdgeSegFormer, tiling: Tiling, size: tuple[int, int], budget: int, skip: bool
) -> Plan | None:
    """What the compiler needs with ``tiling``; None where ``skip`` and the liveness model says far too much."""
    graph = npu_graph(copy.deepcopy(network).tile(tiling), size, compiler.config)
    if skip and forecast(graph, BUILT_IN).arena * _LEAST_SHARE > budget:
        return None
    compiled, _ = compiler.compile(graph, compiler.config.mode())
    needed = compiled.sram_bytes
    peak = max(compiled.steps, key=lambda step: step.sram)
    blocked = f"{peak.source} in '{peak.name}'" if peak.name else peak.source
    return Plan(tiling, "sram", needed, needed <= budget, blocked)


def _largest(
    compiler: Compiler, network: EdgeSegFormer, tiling: Tiling, size: tuple[int, int], budget: int
) -> tuple[int, int] | None:
    """The largest input in the proportions of ``size`` that fits with ``tiling``, in steps of 32, if any does."""
    steps = max(size) // STRIDE
    sides = [[max(1, round(side / STRIDE * i / steps)) * STRIDE for side in size] for i in range(1, steps)]
    low, high = 0, len(sides)
    while low < high:
        middle = (low + high) // 2
        found = _try(compiler, network, tiling, (sides[middle][0], sides[middle][1]), budget, skip=False)
        if found is not None and found.fits:
            low = middle + 1
        else:
            high = middle
    return (sides[low - 1][0], sides[low - 1][1]) if low else None
