"""SegFormer on devices with little memory: INT8 files for four runtimes, each file run and measured.

>>> import segformer_edge
>>> report = segformer_edge.quantize(weights="runs/my_b0", size=512, calibration="images/", out="out/my_b0")
>>> segformer_edge.evaluate("out/my_b0/model.tflite", data="folder:val/").miou
>>> segformer_edge.profile("out/my_b0/model.tflite").measured
>>> labels = segformer_edge.Segmenter.load("out/my_b0/model.tflite")(image)

Functions take the options of the commands of the same name. All names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segformer_edge.errors import SegformerEdgeError
    from segformer_edge.ethos_u.profiling import NpuProfile
    from segformer_edge.evaluate import evaluate
    from segformer_edge.evaluation import EvaluationResult
    from segformer_edge.memory.profiling import FileProfile
    from segformer_edge.profile import profile
    from segformer_edge.quantize import quantize
    from segformer_edge.report.schema import Report, TargetReport
    from segformer_edge.runtime.segmenter import Segmenter
    from segformer_edge.scoring import FileEvaluation
    from segformer_edge.timing.operators import OperatorProfile

__version__ = "0.1.0"

__all__ = [
    "EvaluationResult",
    "FileEvaluation",
    "FileProfile",
    "NpuProfile",
    "OperatorProfile",
    "Report",
    "SegformerEdgeError",
    "Segmenter",
    "TargetReport",
    "evaluate",
    "profile",
    "quantize",
]

#: Modules that are called like the function in them (segformer_edge.callable_module).
_CALLABLE = ("evaluate", "profile", "quantize")
_HOME = {
    "EvaluationResult": "evaluation",
    "FileEvaluation": "scoring",
    "FileProfile": "memory.profiling",
    "NpuProfile": "ethos_u.profiling",
    "OperatorProfile": "timing.operators",
    "Report": "report.schema",
    "SegformerEdgeError": "errors",
    "Segmenter": "runtime.segmenter",
    "TargetReport": "report.schema",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _CALLABLE:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
