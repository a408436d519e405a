"""Runs ``.pte`` files with ExecuTorch's Python binding, which itself imports torch."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.base import backend, cannot_load, check_batch, check_tensor
from segformer_edge.runtime.metadata import ArtifactMetadata

_EXTRA = "runtime-executorch"


class ExecuTorchRuntime:
    """A program's ``forward``. The threads belong to the process: the runtime loaded last sets them for all."""

    def __init__(self, path: Path, metadata: ArtifactMetadata, threads: int = 1) -> None:
        api: Any = backend(["executorch.runtime"], _EXTRA)
        # Registers quantize/dequantize kernels for what a delegate left outside.
        backend(["executorch.kernels.quantized"], _EXTRA)
        portable = backend(["executorch.extension.pybindings.portable_lib"], _EXTRA)
        self._torch: Any = backend(["torch"], _EXTRA)
        self.versions = {name: version(name) for name in ("executorch", "torch")}
        self._metadata = metadata
        if portable._threadpool_get_thread_count() != threads:
            portable._unsafe_reset_threadpool(threads)
        try:
            # The method does not keep its program alive.
            self._program = api.Runtime.get().load_program(path, verification=api.Verification.InternalConsistency)
            self._method = self._program.load_method("forward")
        except (RuntimeError, KeyError, ValueError) as error:
            raise cannot_load("ExecuTorch", path, error) from error
        about = self._method.metadata
        dtypes = _scalar_types(self._torch)
        for what, spec, info in (
            ("input", metadata.input, about.input_tensor_meta(0)),
            ("output", metadata.output, about.output_tensor_meta(0)),
        ):
            check_tensor(path, what, spec.shape, spec.dtype, info.sizes(), dtypes.get(info.dtype(), "unknown"))

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See Runtime.run."""
        batch = check_batch(batch, self._metadata)
        try:
            output = self._method.execute([self._torch.from_numpy(batch)])[0]
        except RuntimeError as error:
            raise ArtifactError(f"ExecuTorch failed in '{self._metadata.file}': {error}") from error
        # A copy: the tensor's memory belongs to the program.
        return np.array(output.detach().numpy())


def _scalar_types(torch: Any) -> dict[int, str]:
    """ExecuTorch's ScalarType numbers -> numpy's names."""
    return {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 6: "float32", 7: "float64", 11: "bool"}
