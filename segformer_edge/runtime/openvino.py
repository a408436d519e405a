"""Runs OpenVINO IR (``.xml`` with ``.bin``) on the CPU with default settings, but where those are known to be wrong."""

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


#: Elements of a bfloat16 product's inner dimension that one AMX tile takes.
_AMX_INNER = 32


def compile_options(core: Any, model: Any, threads: int) -> dict[str, Any]:
    """What ``compile_model`` is given for the CPU: the threads, and float32 where bfloat16 is not safe.

    A CPU with AMX takes the rest of a bfloat16 product whose inner dimension is no multiple of 32 from beyond the
    tensor, NaN included (oneDNN issue 5717). Of a SegFormer that is attention over a number of keys such as the 100 of
    320x320; the 192 of 384x512 and the 256 of 512x512 keep bfloat16, where the CPU has it.
    """
    options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") and _has_odd_product(model):
        options["INFERENCE_PRECISION_HINT"] = "f32"
    return options


def _has_odd_product(model: Any) -> bool:
    """Whether a MatMul sums over a number of elements that no whole AMX tiles hold, as far as shapes are known."""
    for node in model.get_ops():
        if node.get_type_name() == "MatMul":
            shape = node.input(0).get_partial_shape()
            if shape.rank.is_static:
                inner = shape[-2 if node.get_attributes()["transpose_a"] and len(shape) > 1 else -1]
                if inner.is_static and inner.get_length() % _AMX_INNER:
                    return True
    return False


class OpenVINORuntime:
    """A compiled model, with ``compile_options``: a file must be right with the settings a user has."""

    def __init__(self, path: Path, metadata: ArtifactMetadata, threads: int = 1) -> None:
        backend(["openvino"], "runtime-openvino")
        self.versions = {"openvino": version("openvino")}
        self._metadata = metadata
        try:
            core = shared_core()
            model = core.read_model(str(path), str(path.with_suffix(".bin")))
            compiled = core.compile_model(model, "CPU", compile_options(core, model, threads))
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
