"""Runs one file step by step and measures itself: the process that ``measure`` starts.

    python -m segformer_edge.memory.worker hook|resident FORMAT VARIANT THREADS FILE

The last line on stdout is the result as JSON. It imports what a device has, and no more.
"""

from __future__ import annotations

import gc
import mmap
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segformer_edge.cli import run
from segformer_edge.errors import SegformerEdgeError
from segformer_edge.memory.measurement import Block
from segformer_edge.memory.meters import HookMeter, Live, Meter, ResidentMeter, mapped_and_resident
from segformer_edge.memory.roles import MINIMUM, Roles, digests, find_roles, pages
from segformer_edge.memory.subjects import Inputs, Subject, make_subject, random_inputs
from segformer_edge.runtime.base import cannot_load
from segformer_edge.runtime.formats import RUNTIMES
from segformer_edge.worker_process import answer_with

LOADING = ("load", "allocate")
RUNS = ("first run", "second run", "third run")
#: So many blocks are listed.
LISTED = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and answer."""
    how, form, variant, threads, name = argv if argv is not None else sys.argv[1:]
    path = Path(name)
    answer_with(lambda: _measure(how == "hook", make_subject(form, path, int(threads), variant), form, path))


def _measure(hook: bool, subject: Subject, form: str, path: Path) -> dict[str, Any]:
    random_inputs((("", "float32", (1,)), ("", "int8", (1,))), 0)  # the first of each kind imports and caches
    gc.collect()
    gc.disable()
    meter = HookMeter() if hook else ResidentMeter()
    inputs, before, loaded = _run_all(meter, subject, path)
    files = [path, *(path.with_suffix(suffix) for suffix in RUNTIMES[form].companions)]
    mappings = [mapped_and_resident(file) for file in files if file.exists()]
    known = [pair for pair in mappings if pair is not None]
    answer = {
        "runtime": subject.runtime,
        "versions": subject.versions,
        "machine": platform.machine(),
        "inputs": inputs,
        "phases": [asdict(phase) for phase in meter.phases],
        "mapped": sum(pair[0] for pair in known) if known else None,
        "resident": sum(pair[1] for pair in known) if known else None,
    }
    if isinstance(meter, HookMeter):
        answer |= _look(meter, subject, files, before, loaded)
    return answer


def _run_all(meter: Meter, subject: Subject, path: Path) -> tuple[Inputs, dict[int, int], dict[int, list[int]]]:
    """All phases; the inputs, what the blocks held before the last run, and their pages before the first."""
    before: dict[int, int] = {}
    loaded: dict[int, list[int]] = {}
    try:
        with meter.phase(LOADING[0]):
            subject.load()
        with meter.phase(LOADING[1]):
            subject.allocate()
        inputs = subject.inputs()
        if isinstance(meter, HookMeter) and subject.packs_into_arena:
            loaded = pages(_heap(meter.blocks()))
        first, other = (subject.prepare(random_inputs(inputs, seed)) for seed in (0, 1))
        for name, prepared in zip(RUNS, (first, first, other), strict=True):
            if isinstance(meter, HookMeter) and prepared is other:
                before = digests(_heap(meter.blocks()))
            with meter.phase(name):
                subject.run(prepared)
    except SegformerEdgeError:
        raise
    except Exception as error:  # the runtimes' exceptions share no base class below Exception
        raise cannot_load(next(iter(subject.versions)), path, error) from error
    return inputs, before, loaded


def _look(
    meter: HookMeter, subject: Subject, files: Sequence[Path], before: dict[int, int], loaded: dict[int, list[int]]
) -> dict[str, Any]:
    """Where the heap went, at the peak of loading and at that of the inferences."""
    names = [phase.name for phase in meter.phases]
    runs = {place + 1 for place, name in enumerate(names) if name in RUNS}
    now = _heap(meter.blocks())
    contents = [_content(file) for file in files if file.exists()]
    roles = find_roles(now, before, contents, runs, subject.keeps_indirection, loaded)
    answer: dict[str, Any] = {}
    for part, numbers in (("load", set(range(1, len(names) + 1)) - runs), ("run", runs)):
        number = max(numbers, key=lambda each: meter.phases[each - 1].peak)
        blocks = _heap(meter.blocks(number))
        answer[f"{part}_split"] = asdict(roles.split(meter.phases[number - 1].peak, blocks))
        if part == "run":
            answer["blocks"] = [asdict(block) for block in _largest(blocks, roles, names)]
    addresses = subject.tensor_addresses()
    if addresses:
        arenas = [b for b in now if any(b.address <= place < b.address + b.size for place in addresses)]
        answer["arena"] = sum(b.size for b in arenas if b.size >= MINIMUM and roles.role(b) == "activations")
    return answer


def _largest(blocks: Sequence[Live], roles: Roles, names: Sequence[str]) -> list[Block]:
    parts = [
        Block(size, block.kind, names[block.phase - 1], role)
        for block in blocks
        for role, size in roles.parts(block)
        if size and role != "untouched"
    ]
    return sorted(parts, key=lambda part: -part.size)[:LISTED]


def _heap(blocks: Sequence[Live]) -> list[Live]:
    return [block for block in blocks if block.kind != "file"]


def _content(path: Path) -> Any:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


if __name__ == "__main__":
    sys.exit(run(main))
