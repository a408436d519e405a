"""From an SRAM budget to a tiling: the coarsest with which the compiler keeps to it.

The compiler cascades operators of its own, so what it needs is known only when it has compiled.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

from segformer_edge.errors import ArtifactError
from segformer_edge.ethos_u.lowering import KERNELS, Compiler, npu_graph
from segformer_edge.export.exporter import Plan
from segformer_edge.export.planner import PIECES, Way, tiling_for
from segformer_edge.export.tflite_memory import BUILT_IN
from segformer_edge.model.config import STRIDE
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling

_WAY = Way("arena", BUILT_IN, KERNELS)
#: The compiler has needed at least four times the largest tensor; a tiling that cannot keep to that is passed over.
_LEAST_SHARE = 3
#: So many tilings in a row that need more than the best end a search.
_PATIENCE = 2
#: A product of int16 probabilities.
_SCORE_BYTES = 2


def plan(compiler: Compiler, network: EdgeSegFormer, size: tuple[int, int], budget: int) -> Plan:
    """The first tiling that fits, or the best one, and the size that would fit with it; ``network`` stays untiled.

    Raises ArtifactError where the compiler refuses every one.
    """
    ways = list(tilings(network, size))
    hopeful = [tiling for largest, tiling in ways if _LEAST_SHARE * largest <= budget] or [ways[-1][1]]
    best: Plan | None = None
    refused: ArtifactError | None = None
    worse = 0
    for tiling in hopeful:
        try:
            found = _try(compiler, network, tiling, size, budget)
        except ArtifactError as error:  # of one graph; another tiling's may compile
            refused = error
            continue
        if found.fits:
            return found
        if best is None or found.forecast < best.forecast:
            best, worse = found, 0
        else:
            worse += 1
        if worse == _PATIENCE:
            break
    if best is None:
        assert refused is not None
        raise refused
    return replace(best, largest_size=_largest(compiler, network, best.tiling, size, budget))


def tilings(network: EdgeSegFormer, size: tuple[int, int]) -> Iterator[tuple[int, Tiling]]:
    """From untiled to the finest, each once, with the bytes of the largest tensor it is made for."""
    whole, seen = network.config.decoder_dim * (size[0] // 4) * (size[1] // 4), Tiling()
    yield whole, seen
    for piece in PIECES:
        tiling = tiling_for(network.config, size, piece, _WAY, _SCORE_BYTES)
        if tiling != seen:
            seen = tiling
            yield min(piece, whole), tiling


def _try(compiler: Compiler, network: EdgeSegFormer, tiling: Tiling, size: tuple[int, int], budget: int) -> Plan:
    """What the compiler needs with ``tiling``."""
    graph = npu_graph(copy.deepcopy(network).tile(tiling), size, compiler.config)
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
        try:
            fits = _try(compiler, network, tiling, (sides[middle][0], sides[middle][1]), budget).fits
        except ArtifactError:
            fits = False
        low, high = (middle + 1, high) if fits else (low, middle)
    return (sides[low - 1][0], sides[low - 1][1]) if low else None
