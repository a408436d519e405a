"""Latency of several files of one runtime, measured in turns: what slows the machine down slows all of them."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from segformer_edge.memory.subjects import make_subject, random_inputs
from segformer_edge.runtime.formats import format_of
from segformer_edge.runtime.quiet import native_stderr_silenced

#: Turns that are not counted, and the least and the time that are.
WARM_UP, LEAST_TURNS, SECONDS = 2, 15, 30.0


def interleaved(files: Sequence[Path], variants: Sequence[str], seconds: float = SECONDS) -> list[float]:
    """Median milliseconds of an inference of each file in its variant, one thread; a turn runs every file once."""
    subjects, prepared = [], []
    for file, variant in zip(files, variants, strict=True):
        subject = make_subject(format_of(file).name, file, 1, variant)
        with native_stderr_silenced():
            subject.load()
            subject.allocate()
        subjects.append(subject)
        prepared.append(subject.prepare(random_inputs(subject.inputs(), seed=0)))
    taken: list[list[float]] = [[] for _ in files]
    start = time.perf_counter()
    while len(taken[0]) < WARM_UP + LEAST_TURNS or time.perf_counter() - start < seconds:
        for subject, inputs, times in zip(subjects, prepared, taken, strict=True):
            before = time.perf_counter()
            subject.run(inputs)
            times.append((time.perf_counter() - before) * 1e3)
    return [statistics.median(times[WARM_UP:]) for times in taken]


def latencies(files: Sequence[Path], variants: Sequence[str], seconds: float = SECONDS) -> list[float]:
    """``interleaved`` in a process of its own, so that one row's runtime does not disturb the next."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(interleaved, list(files), list(variants), seconds).result()
