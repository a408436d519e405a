"""Peak against input size by the planner's model: writes docs/memory_size.json, which memory_size.py draws.

    python benchmarks/memory_curve.py --out docs/memory_size.json

The model is the one that ``--memory-budget`` plans with (LiteRT with XNNPACK, recipe ``lean``, labels out). Weights are
random: memory does not depend on them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from memory_size import SIDES, collect, save
from random_network import random_network

from segformer_edge.cli import EXIT_OK, Parser, run
from segformer_edge.export.planner import PATIENCE, Planner, way_of
from segformer_edge.progress import progress_for_terminal

FIGURE = "growth of an inference, LiteRT with XNNPACK (model)"
RECIPE = "lean"


def ladder(planner: Planner, side: int) -> list[int]:
    """Bytes from the untiled network to finer tilings, until these need more."""
    found: list[int] = []
    for _, tiling in planner.tilings((side, side)):
        found.append(planner.way.bytes(planner.forecast(tiling, (side, side))))
        if len(found) - 1 - found.index(min(found)) >= PATIENCE:
            break
    return found


def peak_at(found: Sequence[int], budget: int | None) -> int | None:
    """What a plan takes: untiled without a budget, else the coarsest within it; the least for a budget of 0."""
    if budget is None:
        return found[0]
    return min(found) if budget == 0 else next((bytes_ for bytes_ in found if bytes_ <= budget), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Forecast and write."""
    parser = Parser("python benchmarks/memory_curve.py", "Peak against input size by the planner's model.")
    parser.add_argument("--sides", default=",".join(map(str, SIDES)), metavar="N,...", help="multiples of 32")
    parser.add_argument("--classes", type=int, default=150, metavar="N", help="number of classes (default 150)")
    parser.add_argument("--out", type=Path, default=Path("docs/memory_size.json"), metavar="FILE", help="what to write")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)

    @cache
    def planner_of(variant: str) -> Planner:
        network = random_network(variant, options.classes, RECIPE, "labels")
        way = way_of("tflite", network)
        assert way is not None
        return Planner(network, way)

    with progress_for_terminal() as tell, torch.no_grad():

        @cache
        def ladder_of(variant: str, side: int) -> list[int]:
            tell.step(f"{variant.upper()} at {side}x{side}")
            return ladder(planner_of(variant), side)

        sides = [int(side) for side in options.sides.split(",")]
        peaks = collect(lambda side, variant, budget: peak_at(ladder_of(variant, side), budget), sides)
    save(options.out, FIGURE, peaks)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run(main))
