"""Runs ``.pte`` files with ExecuTorch's Python binding, which itself imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.base import cannot_load, check_batch, check_tensor
from segformer_edge.runtime.executorch_binding import SCALAR_TYPES, Binding
from segformer_edge.runtime.metadata import ArtifactMetadata


class ExecuTorchRuntime:
    """A program's ``forward``. The threads belong to the process: the runtime loaded last sets them for all."""

    def __init__(self, path: Path, metadata: ArtifactMetadata, threads: int = 1) -> None:
        binding = Binding(threads)
        self._torch, self.versions, self._metadata = binding.torch, binding.versions, metadata
        try:
            # The method does not keep its program alive.
            self._program = binding.load_program(path)
            self._method = self._program.load_method("forward")
        except (RuntimeError, ValueError) as error:
            raise cannot_load("ExecuTorch", path, error) from error
        about = self._method.method_meta()
        for what, spec, info in (
            ("input", metadata.input, about.input_tensor_meta(0)),
            ("output", metadata.output, about.output_tensor_meta(0)),
        ):
            check_tensor(path, what, spec.shape, spec.dtype, info.sizes(), SCALAR_TYPES.get(info.dtype(), "unknown"))

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See Runtime.run."""
        batch = check_batch(batch, self._metadata)
        try:
            output = self._method([self._torch.from_numpy(batch)])[0]
        except RuntimeError as error:
            raise ArtifactError(f"ExecuTorch failed in '{self._metadata.file}': {error}") from error
        # A copy: the tensor's memory belongs to the program.
        return np.array(output.detach().numpy())
