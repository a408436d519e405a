"""Runs OpenVINO IR (``.xml`` with ``.bin``) on the CPU with default settings."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.base import backend, cannot_load, check_batch, check_tensor
from segformer_edge.runtime.metadata import ArtifactMetadata


@cache
def shared_core() -> Any:
    """The one Core of this process, which stays.

    A CPU plugin gives the thread another stack for signals and takes it away when its Core goes. Where two were alive
    and the older went first (seen in 2026.4), the thread keeps a stack that is no memory any more: the next signal,
    Ctrl-C among them, ends the process.
    """
    ov: Any = backend(["openvino"], "runtime-openvino")
    return ov.Core()


class OpenVINORuntime:
    """A compiled model. Only the number of threads is set: a file must be right with the settings a user has."""

    def __init__(self, path: Path, metadata: ArtifactMetadata, threads: int = 1) -> None:
        backend(["openvino"], "runtime-openvino")
        self.versions = {"openvino": version("openvino")}
        self._metadata = metadata
        try:
            model = shared_core().read_model(str(path), str(path.with_suffix(".bin")))
            compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})
        except RuntimeError as error:
            raise cannot_load("OpenVINO", path, error) from error
        if len(compiled.inputs) != 1 or len(compiled.outputs) != 1:
            raise ArtifactError(
                f"'{path}' has {len(compiled.inputs)} inputs and {len(compiled.outputs)} outputs, not one of each."
            )
        for what, spec, port in (
            ("input", metadata.input, compiled.input(0)),
            ("output", metadata.output, compiled.output(0)),
        ):
            if port.partial_shape.is_dynamic:
                raise ArtifactError(f"'{path}': its {what} has no fixed shape.")
            found = port.get_element_type().to_dtype().name
            check_tensor(path, what, spec.shape, spec.dtype, list(port.shape), found)
        self._request = compiled.create_infer_request()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See Runtime.run."""
        try:
            self._request.infer([check_batch(batch, self._metadata)])
        except RuntimeError as error:
            raise ArtifactError(f"OpenVINO failed in '{self._metadata.file}': {error}") from error
        return np.array(self._request.get_output_tensor(0).data)  # the tensor is overwritten by the next run
