"""The table of pipelines. Importing it needs none of the exporters."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from segformer_edge.errors import UsageError
from segformer_edge.suggestions import did_you_mean

if TYPE_CHECKING:
    from defaults.job import Job


@dataclass(frozen=True)
class Pipeline:
    """One documented way from transformers to a file; its code is ``defaults.<name>.build``."""

    name: str
    suffix: str
    #: Installed packages whose versions decide what comes out.
    packages: tuple[str, ...]
    #: The pipeline whose file this one quantizes.
    starts_from: str | None = None
    #: Endings of further files beside the main one.
    companions: tuple[str, ...] = ()

    def builder(self) -> Callable[[Job, Path], Path]:
        """The pipeline's ``build``. Raises ImportError where its packages are missing."""
        return importlib.import_module(f"defaults.{self.name}").build  # type: ignore[no-any-return]

    def versions(self) -> dict[str, str | None]:
        """Package name to installed version, or None."""
        return {name: _version(name) for name in ("torch", "transformers", *self.packages)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


_TABLE = (
    Pipeline("litert_float", ".tflite", ("litert-torch", "ai-edge-litert")),
    Pipeline(
        "litert_int8", ".tflite", ("litert-torch", "ai-edge-litert", "ai-edge-quantizer"), starts_from="litert_float"
    ),
    Pipeline("executorch_float", ".pte", ("executorch",)),
    Pipeline("executorch_int8", ".pte", ("executorch", "torchao")),
    Pipeline("onnx_float", ".onnx", ("onnx", "onnxscript")),
    Pipeline("onnx_int8", ".onnx", ("onnx", "onnxscript", "onnxruntime"), starts_from="onnx_float"),
    Pipeline("openvino_float", ".xml", ("openvino",), companions=(".bin",)),
    Pipeline("openvino_int8", ".xml", ("openvino", "nncf"), companions=(".bin",)),
)
PIPELINES = {pipeline.name: pipeline for pipeline in _TABLE}


def choose_pipelines(names: Sequence[str]) -> list[Pipeline]:
    """The named pipelines (all for none), each after the one it starts from. Raises UsageError for an unknown name."""
    chosen: dict[str, Pipeline] = {}
    for name in names or PIPELINES:
        if name not in PIPELINES:
            raise UsageError(f"There is no pipeline '{name}'.", hint=did_you_mean(name, PIPELINES))
        pipeline = PIPELINES[name]
        if pipeline.starts_from:
            chosen.setdefault(pipeline.starts_from, PIPELINES[pipeline.starts_from])
        chosen.setdefault(name, pipeline)
    return list(chosen.values())
