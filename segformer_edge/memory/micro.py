"""What TFLite Micro takes for a file, by its own allocator's records: ``allocations(path)``.

Its arena has two ends. One holds what the planner placed, activations and kernels' scratch; the other what stays from
one inference to the next: structures for tensors and operators, and per-channel factors. Weights are read where the
file lies, in flash on a device. Recorded by the interpreter on this machine, whose pointers may be twice as long as
a microcontroller's; the planned end has none.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.formats import check_tflite
from segformer_edge.worker_process import answer_of, host_environment

_WORKER = "segformer_edge.memory.micro_worker"
_TOTAL = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_PART = re.compile(r"'([^']+)' used (\d+) bytes")


@dataclass(frozen=True)
class Allocations:
    """Bytes of the arena. ``parts`` say what ``persistent`` holds, by TFLite Micro's own names."""

    activations: int
    persistent: int
    parts: Mapping[str, int]
    #: Milliseconds of one inference with the interpreter's reference kernels on this machine.
    latency_ms: float
    version: str
    device: str

    @property
    def total(self) -> int:
        """The arena that an inference needs."""
        return self.activations + self.persistent


def allocations(path: str | os.PathLike[str], timeout: float = 1800.0) -> Allocations:
    """Run ``path`` once in a process of its own and read what TFLite Micro recorded.

    Raises ArtifactError for a file that it refuses, MissingBackendError where tflite-micro is not installed,
    MeasurementError where the process ends otherwise or takes longer than ``timeout`` seconds.
    """
    file, device = Path(path).absolute(), f"host {platform.machine()}"
    check_tflite(file)
    answer = answer_of([sys.executable, "-m", _WORKER, str(file)], host_environment(1), file, device, timeout)
    return parse_allocations(answer["words"], answer["latency_ms"], answer["version"], device)


def parse_allocations(words: str, latency_ms: float, version: str, device: str) -> Allocations:
    """From what ``print_allocations`` prints. Raises ArtifactError where the totals are not in it."""
    totals = {name: int(size) for name, size in _TOTAL.findall(words)}
    if set(totals) != {"total", "head", "tail"}:
        raise ArtifactError(
            f"TFLite Micro's records do not say what its arena holds: {words[:200]!r}",
            hint="This version reads those of the tflite-micro that pyproject.toml names.",
        )
    parts = {name: int(size) for name, size in _PART.findall(words)}
    return Allocations(totals["head"], totals["tail"], parts, latency_ms, version, device)
