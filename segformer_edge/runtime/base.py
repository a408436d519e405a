"""What every runtime is to the rest: a loaded file that turns one batch into one output."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from segformer_edge.errors import ArtifactError, MissingBackendError, UsageError
from segformer_edge.ethos_u.configurations import CONFIGURATIONS
from segformer_edge.runtime.formats import RUNTIMES
from segformer_edge.runtime.metadata import ArtifactMetadata
from segformer_edge.runtime.quiet import native_stderr_silenced


class Runtime(Protocol):
    """A loaded artifact. Not thread-safe: one ``run`` at a time."""

    #: Package name -> version of what executes the file.
    versions: dict[str, str]

    def run(self, batch: np.ndarray) -> np.ndarray:
        """One forward pass: ``batch`` in the shape, layout and dtype of the metadata's input -> a fresh output array.

        Values are as the file gives them, so integers where the output is quantized. Raises ArtifactError for a batch
        that does not fit.
        """
        ...


def load_runtime(path: Path, metadata: ArtifactMetadata, threads: int = 1, reference: bool = False) -> Runtime:
    """The runtime of ``metadata.format`` with ``path`` loaded, on ``threads`` CPU threads.

    ``reference`` runs a ``.tflite`` with LiteRT's reference kernels. Raises UsageError where another format is asked
    for that, MissingBackendError where the runtime's package is not installed and ArtifactError for a damaged
    file or one whose tensors are not what its metadata says.
    """
    if threads < 1:
        raise UsageError(f"The number of threads is at least 1; got {threads}.")
    entry = RUNTIMES[metadata.format]
    if reference and entry.name != "tflite":
        raise UsageError(f"Only .tflite files have reference kernels; '{path}' is {entry.name}.")
    more = {"reference": True} if reference else {}
    entry.check(path)
    check_runs_on_cpus(path, metadata)
    with native_stderr_silenced():
        runtime: Runtime = getattr(importlib.import_module(entry.module), entry.runtime)(
            path, metadata, threads, **more
        )
    return runtime


def check_runs_on_cpus(path: Path, metadata: ArtifactMetadata) -> None:
    """Raise UsageError for a file that only an NPU runs, naming what shows its plan and what runs here."""
    if metadata.target in CONFIGURATIONS:
        raise UsageError(
            f"'{path}' holds commands for an {metadata.target}, which only that NPU runs.",
            hint=f"The same graph for this machine: {path.with_name(f'{path.stem}.host.tflite')}. The NPU's plan: "
            f"python -m segformer_edge.profile {path} --on {metadata.target}",
        )


def backend(names: Sequence[str], extra: str) -> ModuleType:
    """The first of the modules ``names`` that imports. Raises MissingBackendError naming ``extra``."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Only a missing package is ours to explain; a broken one should say itself what it lacks.
            if error.name is None or not name.startswith(error.name):
                raise MissingBackendError(f"{name.split('.')[0]} (it needs {error.name}, which)", extra) from error
    raise MissingBackendError(names[0].split(".")[0], extra)


def cannot_load(runtime: str, path: Path, error: Exception, hint: str = "") -> ArtifactError:
    """The ArtifactError for a file that ``runtime`` refuses, with the line of its own complaint that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # TFLite names what an older runtime lacks, and then ends with "Registration failed."
    reason = next((line for line in lines if line.startswith("Didn't find op")), lines[-1])
    return ArtifactError(
        f"{runtime} cannot load '{path}': {reason}",
        hint=hint or "Export it again with python -m segformer_edge.quantize, or with this runtime's version.",
    )


def check_tensor(path: Path, what: str, expected: Sequence[int], dtype: str, shape: Sequence[int], found: str) -> None:
    """Raise ArtifactError if the loaded file's input or output is not what its metadata says."""
    if tuple(expected) != tuple(shape) or dtype != found:
        raise ArtifactError(
            f"'{path}': its {what} is {found} {list(shape)}, but its metadata says {dtype} {list(expected)}."
        )


def check_batch(batch: np.ndarray, metadata: ArtifactMetadata) -> np.ndarray:
    """``batch`` as a contiguous array if it fits the metadata's input. Raises ArtifactError."""
    expected = metadata.input
    if batch.shape != tuple(expected.shape) or batch.dtype.name != expected.dtype:
        raise ArtifactError(
            f"The input is {batch.dtype.name} {list(batch.shape)}; '{metadata.file}' takes "
            f"{expected.dtype} {list(expected.shape)}."
        )
    return np.ascontiguousarray(batch)
