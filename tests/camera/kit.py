"""Clips, cameras and a segmenter that need no hardware and no network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from segformer_edge.camera.session import CameraSession
from segformer_edge.runtime.latency import FrameTimes

CLIP_SIZE, CLIP_FRAMES = (64, 96), 6


class StubSegmenter:
    """Three classes by brightness; ``seconds`` is how long a frame takes."""

    class_names = ("dark", "middle", "bright")
    palette = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)], np.uint8)
    runtime = SimpleNamespace(versions={"stub": "1"})

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def timed(self, image, order="rgb"):
        assert order == "bgr"
        time.sleep(self.seconds)
        return (image.max(axis=2) // 86).astype(np.uint8), FrameTimes(0.1, 1.0, 0.2)


class FakeCamera:
    """Plays ``script``: a picture, or an exception to raise; then the last entry again and again."""

    live, fps = True, 30.0

    def __init__(self, script: Sequence[object], interval: float = 0.002) -> None:
        self.script, self.place, self.interval, self.closed = list(script), 0, interval, False

    def read(self):
        time.sleep(self.interval)
        entry = self.script[min(self.place, len(self.script) - 1)]
        self.place += 1
        if isinstance(entry, Exception):
            raise entry
        return entry

    def close(self):
        self.closed = True


def write_clip(path: Path, frames: Sequence[np.ndarray], fps: float = 10.0) -> Path:
    """RGB frames as a lossless clip."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def finish(session: CameraSession, seconds: float = 20.0) -> None:
    """Wait until the session has ended by itself. Raises what ended it."""
    until(lambda: not session.running(), seconds)


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for ``condition``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def picture(value: int = 100, size: tuple[int, int] = CLIP_SIZE) -> np.ndarray:
    """A plain picture."""
    return np.full((*size, 3), value, np.uint8)
