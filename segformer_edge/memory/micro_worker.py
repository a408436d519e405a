"""Runs one file in TFLite Micro: ``python -m segformer_edge.memory.micro_worker FILE``; the process of ``micro``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segformer_edge.cli import run
from segformer_edge.memory.subjects import random_inputs
from segformer_edge.runtime.tflm import MicroInterpreter
from segformer_edge.worker_process import answer_with


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and answer."""
    (name,) = argv if argv is not None else sys.argv[1:]
    answer_with(lambda: _measure(Path(name)))


def _measure(path: Path) -> dict[str, Any]:
    interpreter = MicroInterpreter(path)
    dtype, shape = interpreter.input
    (image,) = random_inputs((("image", dtype, shape),), seed=0)
    start = time.perf_counter()
    interpreter.run(image)
    seconds = time.perf_counter() - start
    return {"words": interpreter.records(), "latency_ms": 1000 * seconds, "version": version("tflite-micro")}


if __name__ == "__main__":
    sys.exit(run(main))
