"""Runs ``.tflite`` files with LiteRT, or with its predecessor tflite-runtime where LiteRT has no wheel (32-bit Pi).

LiteRT's CompiledModel runs them where there is one, for its memory; else the Interpreter, with the same results.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.base import backend, cannot_load, check_batch, check_tensor
from segformer_edge.runtime.metadata import ArtifactMetadata
from segformer_edge.runtime.tflite_compiled import CompiledFile, TensorInfo

#: Module -> its package; the first that is installed runs a file.
PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}


#: What the buffers of CompiledModel hold.
_COMPILED_DTYPES = ("float32", "int8", "uint8", "int32")


class _Interpreted:
    """The Interpreter with its default delegate (XNNPACK) or the reference kernels, used like a CompiledFile."""

    def __init__(self, path: Path, threads: int, module: Any, reference: bool) -> None:
        kinds = module.OpResolverType
        self._interpreter = module.Interpreter(
            model_path=str(path),
            num_threads=threads,
            experimental_op_resolver_type=kinds.BUILTIN_REF if reference else kinds.AUTO,
        )
        self._given, self._made = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs, self.outputs = _infos(self._given), _infos(self._made)

    def allocate(self) -> None:
        self._interpreter.allocate_tensors()

    def write(self, place: int, array: np.ndarray) -> None:
        self._interpreter.set_tensor(self._given[place]["index"], array)

    def run(self) -> None:
        self._interpreter.invoke()

    def read(self, place: int) -> np.ndarray:
        output: np.ndarray = self._interpreter.get_tensor(self._made[place]["index"])  # a copy
        return output


def _infos(details: Sequence[Any]) -> list[TensorInfo]:
    return [TensorInfo(np.dtype(e["dtype"]).name, tuple(e["shape"].tolist())) for e in details]


def _opened(path: Path, threads: int, module: Any, dtypes: set[str], reference: bool) -> CompiledFile | _Interpreted:
    if not reference and dtypes.issubset(_COMPILED_DTYPES):
        with suppress(ImportError):  # tflite-runtime, or another LiteRT than 2.3
            return CompiledFile(path, threads)
    return _Interpreted(path, threads, module, reference)


class TFLiteRuntime:
    """A ``.tflite`` of ours on the CPU; ``reference`` runs LiteRT's own slow reference kernels in place of XNNPACK."""

    def __init__(self, path: Path, metadata: ArtifactMetadata, threads: int = 1, reference: bool = False) -> None:
        module: Any = backend([f"{name}.interpreter" for name in PACKAGES], "runtime-tflite")
        package = PACKAGES[module.__name__.split(".")[0]]
        self.versions = {package: version(package)}
        self._metadata = metadata
        try:
            self._file = _opened(path, threads, module, {metadata.input.dtype, metadata.output.dtype}, reference)
            self._file.allocate()
        except (ValueError, RuntimeError) as error:
            raise cannot_load("LiteRT", path, error) from error
        inputs, outputs = self._file.inputs, self._file.outputs
        if len(inputs) != 1 or len(outputs) != 1:
            raise ArtifactError(f"'{path}' has {len(inputs)} inputs and {len(outputs)} outputs, not one of each.")
        for what, spec, info in (("input", metadata.input, inputs[0]), ("output", metadata.output, outputs[0])):
            check_tensor(path, what, spec.shape, spec.dtype, info.shape, info.dtype)

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See Runtime.run."""
        self._file.write(0, check_batch(batch, self._metadata))
        try:
            self._file.run()
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"LiteRT failed in '{self._metadata.file}': {error}") from error
        return self._file.read(0)
