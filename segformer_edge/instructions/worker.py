"""Runs on the emulated CPU: an inference to warm up, then one between two marks.

    python -m segformer_edge.instructions.worker FORMAT VARIANT FILE

The last line on stdout says what ran, as JSON; the emulator's plugin keeps the count. Imports what a device has.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segformer_edge.cli import run
from segformer_edge.errors import SegformerEdgeError
from segformer_edge.instructions.marks import BEGIN, END, SYSTEM_CALL
from segformer_edge.memory.subjects import COMPILED, make_subject, random_inputs
from segformer_edge.runtime.base import cannot_load
from segformer_edge.runtime.litert_api import open_api
from segformer_edge.worker_process import answer_with

#: Inferences before the counted one: the first lets runtimes pack and plan. The third differs from the second by
#: less than 0.01 % in LiteRT and by 0.06 % in onnxruntime, and takes minutes.
WARM_UPS = 1
#: The variant "what our own runtime uses there".
OURS = "ours"


def main(argv: Sequence[str] | None = None) -> int:
    """Run and answer."""
    form, variant, name = argv if argv is not None else sys.argv[1:]
    answer_with(lambda: _count(form, chosen(form) if variant == OURS else variant, Path(name)))


def chosen(form: str) -> str:
    """As ``segformer_edge.runtime.tflite`` chooses: LiteRT's CompiledModel where there is one."""
    if form != "tflite":
        return ""
    try:
        open_api()
    except ImportError:
        return ""
    return COMPILED


def _count(form: str, variant: str, path: Path) -> dict[str, Any]:
    subject = make_subject(form, path, 1, variant)
    mark = ctypes.CDLL(None).syscall
    try:
        subject.load()
        subject.allocate()
        prepared = subject.prepare(random_inputs(subject.inputs(), 0))
        for _ in range(WARM_UPS):
            subject.run(prepared)
        gc.disable()
        mark(SYSTEM_CALL, BEGIN)
        subject.run(prepared)
        mark(SYSTEM_CALL, END)
    except SegformerEdgeError:
        raise
    except Exception as error:  # the runtimes' exceptions share no base class below Exception
        raise cannot_load(next(iter(subject.versions)), path, error) from error
    return {"runtime": subject.runtime, "versions": subject.versions}


if __name__ == "__main__":
    sys.exit(run(main))
