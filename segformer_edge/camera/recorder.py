"""An .mp4 that is there whole or not at all."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segformer_edge.cli import DiskFullError
from segformer_edge.errors import SegformerEdgeError
from segformer_edge.runtime.quiet import native_stderr_silenced

#: Frames a second of a recording from a camera. Inferences keep no beat, so pictures are repeated or left out to it.
LIVE_FPS = 10.0
#: Bytes that must be free to write the next picture: OpenCV does not report a write that failed.
RESERVE = 8 << 20
#: Pictures that one gap in a camera's stream may be filled with.
_MOST_REPEATS = 50


class Recorder:
    """Writes pictures of one size under a temporary name; ``finish`` gives the file its own."""

    def __init__(self, path: Path, fps: float | None) -> None:
        """``fps`` of a file's frames, each written once; None where they follow the clock, as a camera's do."""
        self._path = path
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size: tuple[int, int] = (0, 0)
        self._begun = 0.0
        self._clock: Callable[[], float] = time.monotonic
        self.written = 0

    def write(self, picture: npt.NDArray[np.uint8]) -> None:
        """Add a BGR picture (H, W, 3); one of another size is scaled to the first's.

        Raises DiskFullError before the disk is full, SegformerEdgeError where no encoder starts.
        """
        if self._writer is None:
            self._open(picture)
        assert self._writer is not None
        self._check_room()
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = np.asarray(cv2.resize(picture, self._size), np.uint8)
        for _ in range(self._due()):
            self._writer.write(picture)
            self.written += 1

    def finish(self) -> None:
        """Close the file and give it its name; nothing is left where no picture came.

        Raises DiskFullError, and removes the file, where what was written cannot be read back.
        """
        if self._writer is None:
            return
        self._release()
        try:
            frames = _frames_in(self._temporary)
            if frames < self.written:
                raise DiskFullError(
                    f"'{self._path}' could not be written: {frames} of {self.written} pictures can be read back.",
                    hint="Is the disk full, or a quota reached? See df -h and ulimit -f.",
                )
            self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Close and remove the file."""
        self._release()
        self._temporary.unlink(missing_ok=True)

    def _open(self, picture: npt.NDArray[np.uint8]) -> None:
        self._size = (picture.shape[1], picture.shape[0])
        self._check_room()
        with native_stderr_silenced():
            self._writer = cv2.VideoWriter(
                str(self._temporary), cv2.VideoWriter.fourcc(*"mp4v"), self._fps or LIVE_FPS, self._size
            )
        if not self._writer.isOpened():
            self.abandon()
            self._writer = None
            raise SegformerEdgeError(
                f"'{self._path}' cannot be written: OpenCV opens no MPEG-4 encoder for size {self._size}.",
                hint="Is the folder writable, and does cv2.getBuildInformation() name FFMPEG?",
            )
        self._begun = self._clock()

    def _due(self) -> int:
        """How often the picture is written now."""
        if self._fps is not None:
            return 1
        wanted = int((self._clock() - self._begun) * LIVE_FPS) + 1
        missing = wanted - self.written
        if missing > _MOST_REPEATS:  # the camera was stopped or away; the recording leaves that out
            self._begun += (missing - 1) / LIVE_FPS
            return 1
        return max(0, missing)

    def _check_room(self) -> None:
        free = os.statvfs(self._path.parent)
        room = free.f_bavail * free.f_frsize
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY:
            room = min(room, limit - (self._temporary.stat().st_size if self._temporary.exists() else 0))
        if room < RESERVE:
            raise DiskFullError(
                f"No space left for '{self._path}': {max(room, 0) >> 20} MB free after {self.written} pictures.",
                hint="Free some space or record to another disk (df -h, ulimit -f). The recording was removed.",
            )

    def _release(self) -> None:
        if self._writer is not None:
            self._writer.release()


def _frames_in(path: Path) -> int:
    """Frames that the file's index names, 0 where it cannot be opened or its last one cannot be decoded."""
    if not path.exists():
        return 0
    with native_stderr_silenced():
        capture = cv2.VideoCapture(str(path))
        try:
            if not capture.isOpened():
                return 0
            frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            capture.set(cv2.CAP_PROP_POS_FRAMES, max(frames - 1, 0))
            return frames if capture.read()[0] else 0
        finally:
            capture.release()
