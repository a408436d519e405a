"""What mypy must know of the API. Nothing runs this; ``make lint`` checks it, before and after importing submodules."""

from __future__ import annotations

from typing import assert_type

import segformer_edge
import segformer_edge.quantize
from segformer_edge import (
    FileEvaluation,
    FileProfile,
    NpuProfile,
    OperatorProfile,
    Report,
    Segmenter,
    evaluate,
    profile,
    quantize,
)


def through_the_package() -> None:
    """``segformer_edge.quantize`` is the function although the module of that name was imported."""
    assert_type(segformer_edge.quantize(targets=["tflite"], size=(64, 96), memory_budget="2M"), Report)
    assert_type(segformer_edge.Segmenter.load("model.tflite"), Segmenter)


def by_name() -> None:
    """The profile's kind follows from ``operators``."""
    assert_type(quantize(out="out"), Report)
    assert_type(evaluate("model.tflite", data="demo"), FileEvaluation)
    assert_type(profile("model.tflite"), FileProfile | NpuProfile)
    assert_type(profile("model.tflite", operators=True), OperatorProfile)
