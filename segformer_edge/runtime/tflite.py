"""Runs ``.tflite`` files with LiteRT, or with its predecessor tflite-runtime where LiteRT has no wheel (32-bit Pi)."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.base import backend, cannot_load, check_batch, check_tensor
from segformer_edge.runtime.metadata import ArtifactMetadata

#: Module -> its package; the first that is installed runs a file.
PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}


class TFLiteRuntime:
    """A LiteRT interpreter with its default delegate (XNNPACK)."""

    def __init__(self, path: Path, metadata: ArtifactMetadata, threads: int = 1) -> None:
        module: Any = backend([f"{name}.interpreter" for name in PACKAGES], "runtime-tflite")
        package = PACKAGES[module.__name__.split(".")[0]]
        self.versions = {package: version(package)}
        self._metadata = metadata
        try:
            self._interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise cannot_load("LiteRT", path, error) from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ArtifactError(f"'{path}' has {len(inputs)} inputs and {len(outputs)} outputs, not one of each.")
        for what, spec, info in (("input", metadata.input, inputs[0]), ("output", metadata.output, outputs[0])):
            check_tensor(path, what, spec.shape, spec.dtype, info["shape"].tolist(), np.dtype(info["dtype"]).name)
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See Runtime.run."""
        self._interpreter.set_tensor(self._input, check_batch(batch, self._metadata))
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"LiteRT failed in '{self._metadata.file}': {error}") from error
        output: np.ndarray = self._interpreter.get_tensor(self._output)  # a copy
        return output
