"""Latency of several files of one runtime, measured in turns: what slows the machine down slows all of them."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from segformer_edge.memory.subjects import make_subject, random_inputs
from segformer_edge.runtime.formats import format_of
from segformer_edge.runtime.quiet import native_stderr_silenced

#: Turns that are not counted, and the least and the time that are.
WARM_UP, LEAST_TURNS, SECONDS = 2, 15, 30.0


@dataclass(frozen=True)
class Timing:
    """Milliseconds of an inference over ``runs`` turns: median, least, and the quartiles as the spread."""

    median: float
    least: float
    quartiles: tuple[float, float]
    runs: int

    @classmethod
    def of(cls, taken: Sequence[float]) -> Timing:
        """The statistics of at least two measured times."""
        low, _, high = statistics.quantiles(taken, n=4)
        return cls(statistics.median(taken), min(taken), (low, high), len(taken))


def interleaved(
    files: Sequence[Path], variants: Sequence[str], threads: int = 1, seconds: float = SECONDS
) -> list[Timing]:
    """Each file in its variant of its runtime; a turn runs every file once."""
    subjects, prepared = [], []
    for file, variant in zip(files, variants, strict=True):
        subject = make_subject(format_of(file).name, file, threads, variant)
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
    return [Timing.of(times[WARM_UP:]) for times in taken]


def timings(files: Sequence[Path], variants: Sequence[str], threads: int = 1, seconds: float = SECONDS) -> list[Timing]:
    """``interleaved`` in a process of its own, so that one runtime does not disturb the next."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(interleaved, list(files), list(variants), threads, seconds).result()


def medians(files: Sequence[Path], variants: Sequence[str]) -> list[float]:
    """Median milliseconds of each file, one thread."""
    return [timing.median for timing in timings(files, variants)]
