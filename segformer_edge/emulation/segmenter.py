"""``EmulatedSegmenter``: an exported file on an emulated ARM CPU, called like ``Segmenter``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from segformer_edge.data.processing import check_image
from segformer_edge.emulation.errors import EmulationError
from segformer_edge.emulation.frames import pack, read_frame, unpack, write_frame
from segformer_edge.emulation.sysroot import open_runtime
from segformer_edge.errors import UsageError
from segformer_edge.runtime.metadata import ArtifactMetadata

#: Seconds that a worker whose input was closed may take to end.
_PATIENCE = 10.0


class EmulatedSegmenter:
    """One process on the emulated CPU that loads the file once and segments image after image.

    ``with EmulatedSegmenter("out/model.tflite", "cortex-a72") as segmenter: labels = segmenter(image)``

    Pre- and post-processing run there too. With ``output="logits"`` a call gives the logits (C, h, w) instead. Raises
    UsageError for an unknown CPU or a format without a runtime there, NotPreparedError, ArtifactError for a bad file,
    EmulationError where the program on the CPU fails, with its last words.
    """

    def __init__(self, file: str | os.PathLike[str], cpu: str, threads: int = 1, output: str = "labels") -> None:
        if output not in ("labels", "logits"):
            raise UsageError(f"The output is labels or logits, not '{output}'.")
        if threads < 1:
            raise UsageError(f"The number of threads is at least 1; got {threads}.")
        self.file = Path(file).absolute()
        self.metadata = ArtifactMetadata.load(self.file)
        sysroot, self.cpu = open_runtime(cpu, self.file, self.metadata.format)
        self._errors = TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            sysroot.command(self.cpu, ["-m", f"{__package__}.worker", str(self.file), str(threads), output]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=sysroot.environment(),
        )
        try:
            about = json.loads(self._receive())
        except BaseException:
            self.close()
            raise
        #: "aarch64", as the emulated system calls itself.
        self.machine: str = about["machine"]
        #: Package name -> version of what executes the file there.
        self.versions: dict[str, str] = about["versions"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of class 0, 1, ..."""
        return self.metadata.class_names

    def __call__(self, image: npt.NDArray[np.uint8]) -> np.ndarray:
        """uint8 RGB image (H, W, 3) -> label map uint8 (H, W), or the logits. Raises DataError, EmulationError."""
        check_image(image)
        try:
            write_frame(cast(BinaryIO, self._process.stdin), pack(image))
        except (BrokenPipeError, ValueError) as error:
            raise self._ended() from error
        return unpack(self._receive())

    def close(self) -> None:
        """End the process. Further calls raise EmulationError."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> EmulatedSegmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()  # it may be in the middle of a long inference
        self.close()

    def _receive(self) -> bytes:
        try:
            frame = read_frame(cast(BinaryIO, self._process.stdout))
        except (EOFError, ValueError) as error:
            raise self._ended() from error
        if frame is None:
            raise self._ended()
        return frame

    def _ended(self) -> EmulationError:
        """Why the process ended: its last lines on stderr, or the signal that ended it."""
        if self._errors.closed:
            return EmulationError(f"The program on the emulated {self.cpu.name} was closed.")
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return EmulationError(
            f"'{self.file.name}' on the emulated {self.cpu.name} ended with {ending}: "
            f"{' '.join(lines[-2:]) or 'it said nothing'}"
        )
