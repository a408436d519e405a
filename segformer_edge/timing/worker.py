"""Runs one file under its runtime's profiler: the process that ``segformer_edge.timing.profiling`` starts.

    python -m segformer_edge.timing.worker FORMAT delegate|no-delegate THREADS RUNS FILE

The last line on stdout is the result as JSON. It imports what a device has, and no more.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from segformer_edge.cli import run
from segformer_edge.errors import ArtifactError, SegformerEdgeError
from segformer_edge.memory.subjects import Subject, random_inputs
from segformer_edge.runtime.base import cannot_load
from segformer_edge.runtime.quiet import native_stderr_silenced
from segformer_edge.timing.operators import Event, attributed, medians
from segformer_edge.worker_process import answer_with

#: Inferences that are not counted: caches, lazy set-up, the CPU's clock.
WARM_UP = 3

_ROOM = "segformer_edge.timing.profilers"
#: Format -> module and class. Made with (path, threads, delegate, profiling).
PROFILERS: dict[str, tuple[str, str]] = {
    "executorch": (f"{_ROOM}.executorch", "ExecuTorchProfiler"),
    "tflite": (f"{_ROOM}.tflite", "LiteRTProfiler"),
    "openvino": (f"{_ROOM}.openvino", "OpenVINOProfiler"),
    "onnx": (f"{_ROOM}.onnx", "ONNXProfiler"),
}


class Profiler(Subject, Protocol):
    """A file and its runtime, with the runtime's profiler on or off."""

    def collect(self) -> None:
        """Called after each inference with the profiler on, outside of the time that is taken."""

    def events(self) -> list[list[Event]]:
        """Each inference's operators in the order of execution; called once, at the end."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Time and answer."""
    form, delegate, threads, runs, name = argv if argv is not None else sys.argv[1:]
    answer_with(lambda: _profile(form, Path(name), int(threads), delegate == "delegate", int(runs)))


def _profile(form: str, path: Path, threads: int, delegate: bool, runs: int) -> dict[str, Any]:
    def make(profiling: bool) -> Profiler:
        module, name = PROFILERS[form]
        with native_stderr_silenced():
            made: Profiler = getattr(importlib.import_module(module), name)(path, threads, delegate, profiling)
        return made

    plain = _times(make(False), path, runs, collecting=False)
    profiler = make(True)
    profiled = _times(profiler, path, runs, collecting=True)
    found = profiler.events()[-runs:]
    events = medians(found)
    if events is None:
        raise ArtifactError(f"'{path}': its inferences differ in their operators, so they have no common profile.")
    return {
        "runtime": profiler.runtime,
        "versions": profiler.versions,
        "plain": plain,
        "inference": profiled,
        "rest": [ms - attributed(run) for ms, run in zip(profiled, found, strict=True)],
        "events": [asdict(event) for event in events],
        "notes": getattr(profiler, "notes", ()),
    }


def _times(profiler: Profiler, path: Path, runs: int, collecting: bool) -> list[float]:
    """Milliseconds of each inference after the warm-up."""
    try:
        with native_stderr_silenced():
            profiler.load()
            profiler.allocate()
        prepared = profiler.prepare(random_inputs(profiler.inputs(), 0))
        taken = []
        for _ in range(WARM_UP + runs):
            start = time.perf_counter()
            profiler.run(prepared)
            taken.append((time.perf_counter() - start) * 1e3)
            if collecting:
                profiler.collect()
    except SegformerEdgeError:
        raise
    except Exception as error:  # the runtimes' exceptions share no base class below Exception
        raise cannot_load(next(iter(profiler.versions)), path, error) from error
    return taken[WARM_UP:]


if __name__ == "__main__":
    sys.exit(run(main))
