"""Tilings near one: simulated annealing over the counts, where cutting all stages alike does not reach a budget.

What blocks says which count helps: more parts there lower the peak. Fewer parts elsewhere save operators, each of which
takes memory of the runtime's own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from segformer_edge.export.exporter import Plan
from segformer_edge.rewrite.tiling import Tiling

#: Tilings that are tried: half a second each.
ATTEMPTS = 200
#: By how much the search takes less of what is worse from one attempt to the next, and how much it takes at first.
COOLING = 0.99
ROOM = 0.01
#: What is changed: a count of a tiling, its stage, and the most it may be. Counts of the head have no stage.
_COUNTS = (
    *(("bands", stage, 16) for stage in (0, 1)),
    *(("queries", stage, 16) for stage in range(4)),
    *(("ffn", stage, 4) for stage in (0, 1, 2)),
    *(("embedding", stage, 4) for stage in (0, 1)),
    ("head", None, 16),
    ("head_channels", None, 2),
)
#: Part of a stage -> what cuts it; where none is named, its norms block, which follow the bands.
_CUTS = {"attention": "queries", "ffn": "ffn", "embedding": "embedding"}


def blocking_count(blocked_by: str) -> tuple[str, int | None]:
    """The count that cuts what ``blocked_by`` names, as ``Plan`` has it, and its stage."""
    found = re.search(r"stages\.(\d)(\S*)", blocked_by)
    if found is None:
        return "head", None
    names = [name for part, name in _CUTS.items() if f".{part}" in found[2]]
    return (names or ["bands"])[0], int(found[1])


def changed(tiling: Tiling, name: str, stage: int | None, step: int, most: int) -> Tiling:
    """``tiling`` with one count ``step`` higher, within 1 and ``most``."""
    counts: Any = getattr(tiling, name)
    if stage is None:
        made: Any = max(1, min(most, counts + step))
    else:
        made = (*counts[:stage], max(1, min(most, counts[stage] + step)), *counts[stage + 1 :])
    return replace(tiling, **{name: made})


def neighbour(plan: Plan, chance: random.Random) -> Tiling:
    """The plan's tiling with what blocks it cut finer, or other counts a little higher or lower, or both."""
    tiling = plan.tiling
    most = {(name, stage): limit for name, stage, limit in _COUNTS}
    blocking = blocking_count(plan.blocked_by)
    way = chance.random()
    if way < 0.6 and blocking in most:
        tiling = changed(tiling, *blocking, chance.choice((1, 1, 2)), most[blocking])
    if way > 0.3:
        for _ in range(chance.choice((1, 1, 2))):
            name, stage, limit = chance.choice(_COUNTS)
            tiling = changed(tiling, name, stage, chance.choice((-2, -1, -1, 1)), limit)
    return tiling


def search(best: Plan, attempt: Callable[[Tiling], Plan], attempts: int = 0) -> Plan:
    """The plan around ``best`` that needs least, or the first that fits; the same each time."""
    chance, tried, now = random.Random(0), {best.tiling: best}, best
    room = best.forecast * ROOM
    for _ in range(attempts or ATTEMPTS):
        tiling = neighbour(now, chance)
        plan = tried[tiling] = tried.get(tiling) or attempt(tiling)
        if plan.forecast - now.forecast <= room * chance.expovariate(1.0):
            now = plan
        best = min(best, plan, key=lambda each: each.forecast)
        room *= COOLING
        if best.fits:
            break
    return best
