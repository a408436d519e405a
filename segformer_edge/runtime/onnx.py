"""Runs ``.onnx`` files with onnxruntime on the CPU with default settings."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.base import backend, cannot_load, check_batch, check_tensor
from segformer_edge.runtime.metadata import ArtifactMetadata

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class ONNXRuntime:
    """An inference session; only the number of threads is set, and warnings about the host are kept quiet."""

    def __init__(self, path: Path, metadata: ArtifactMetadata, threads: int = 1) -> None:
        ort: Any = backend(["onnxruntime"], "runtime-onnx")
        self.versions = {"onnxruntime": version("onnxruntime")}
        self._metadata = metadata
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            # Its fallback to the same provider prints about a damaged file on stdout.
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # its exceptions share no base class below Exception
            raise cannot_load("onnxruntime", path, error) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ArtifactError(f"'{path}' has {len(inputs)} inputs and {len(outputs)} outputs, not one of each.")
        for what, spec, info in (("input", metadata.input, inputs[0]), ("output", metadata.output, outputs[0])):
            check_tensor(path, what, spec.shape, spec.dtype, info.shape, _DTYPES.get(info.type, info.type))
        self._input = inputs[0].name

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See Runtime.run."""
        feed = {self._input: check_batch(batch, self._metadata)}
        try:
            output: np.ndarray = self._session.run(None, feed)[0]
        except Exception as error:
            raise ArtifactError(f"onnxruntime failed in '{self._metadata.file}': {error}") from error
        return output
