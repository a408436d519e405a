"""Runs ``.tflite`` files with TFLite Micro's own interpreter, as a microcontroller does, on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.base import backend, cannot_load, check_batch, check_tensor
from segformer_edge.runtime.metadata import ArtifactMetadata

#: Bytes of the arena tried first, and the most that is tried. The interpreter says only whether one is enough.
_ARENA, _LARGEST_ARENA = 4 << 20, 1 << 30
#: What to do with a file that was made for another runtime.
_OTHER = "Export it for TFLite Micro: python -m segformer_edge.quantize --targets tflm"
_TOO_SMALL = ("failed to allocate", "failed to resize", "arena")


class MicroInterpreter:
    """One file with one input and one output. Raises ArtifactError where the interpreter refuses it."""

    def __init__(self, path: Path) -> None:
        runtime: Any = backend(["tflite_micro.python.tflite_micro.runtime"], "runtime-tflm")
        self._path = path
        arena = _ARENA
        while True:
            words: list[str] = []
            try:
                with _captured(words):
                    self._interpreter = runtime.Interpreter.from_file(str(path), arena_size=arena)
                break
            except Exception as error:  # what the interpreter's own reader meets in a damaged file is of any kind
                told = " ".join(words).lower()
                if not any(phrase in told for phrase in _TOO_SMALL) or arena >= _LARGEST_ARENA:
                    what = RuntimeError(words[0] if words else str(error))
                    raise cannot_load("TFLite Micro", path, what, _OTHER if "didn't find op" in told else "") from error
                arena *= 4
        self.input = self._info(self._interpreter.get_input_details(0))
        self.output = self._info(self._interpreter.get_output_details(0))

    @staticmethod
    def _info(details: Any) -> tuple[str, tuple[int, ...]]:
        return np.dtype(details["dtype"]).name, tuple(int(side) for side in details["shape"])

    def run(self, batch: np.ndarray) -> np.ndarray:
        """One inference. Raises ArtifactError where it fails."""
        words: list[str] = []
        try:
            with _captured(words):
                self._interpreter.set_input(batch, 0)
                self._interpreter.invoke()
                output: np.ndarray = np.array(self._interpreter.get_output(0))
        except (RuntimeError, ValueError) as error:
            raise ArtifactError(f"TFLite Micro failed in '{self._path.name}': {(words or [str(error)])[0]}") from error
        return output

    def records(self) -> str:
        """What the interpreter's allocator recorded, in its words."""
        words: list[str] = []
        with _captured(words):
            self._interpreter.print_allocations()
        return "\n".join(words)


class TFLMRuntime:
    """A ``.tflite`` of ours in TFLite Micro's interpreter: reference kernels, one thread, whatever is asked."""

    def __init__(self, path: Path, metadata: ArtifactMetadata, threads: int = 1) -> None:
        self._interpreter, self._metadata = MicroInterpreter(path), metadata
        self.versions = {"tflite-micro": version("tflite-micro")}
        specs = (
            ("input", metadata.input, self._interpreter.input),
            ("output", metadata.output, self._interpreter.output),
        )
        for what, spec, (dtype, shape) in specs:
            check_tensor(path, what, spec.shape, spec.dtype, shape, dtype)

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See Runtime.run."""
        return self._interpreter.run(check_batch(batch, self._metadata))


@contextmanager
def _captured(lines: list[str]) -> Iterator[None]:
    """Append what native code writes to descriptor 2 meanwhile to ``lines``."""
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
