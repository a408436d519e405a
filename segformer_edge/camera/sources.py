"""Where pictures come from, as one protocol: V4L2 cameras, the Pi's camera, video files, images, folders of images."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from segformer_edge.camera.config import CameraConfig
from segformer_edge.camera.errors import BadFrameError, EndOfFramesError, SourceLostError
from segformer_edge.data.images import IMAGE_SUFFIXES, list_images, read_image
from segformer_edge.errors import DataError, UsageError
from segformer_edge.paths import user_path
from segformer_edge.runtime.quiet import native_stderr_silenced
from segformer_edge.suggestions import did_you_mean

#: Frames a second of images, which have no speed of their own.
IMAGES_FPS = 5.0
_DEVICES = Path("/dev")


class Source(Protocol):
    """An opened source. One thread uses it."""

    #: Frames come by the clock and wait for nobody: a camera.
    live: bool
    #: Frames a second as the source says, or None.
    fps: float | None

    def read(self) -> npt.NDArray[np.uint8]:
        """The next frame, uint8 BGR (H, W, 3).

        Raises EndOfFramesError, BadFrameError for a frame to pass over, SourceLostError for a camera that went away.
        """
        ...

    def close(self) -> None:
        """Let the camera or file go."""
        ...


def open_source(config: CameraConfig) -> Source:
    """The source that ``config`` names. Raises UsageError or DataError where it is not there or cannot be read."""
    text = config.source
    if text == "picamera":
        from segformer_edge.camera.picamera import PiCamera

        return PiCamera(config.size)
    device = re.fullmatch(r"(?:/dev/video)?(\d{1,3})", text, flags=re.ASCII)
    if device is not None:
        return V4L2Camera(int(device.group(1)), config.size)
    path = user_path(text)
    if path.is_dir():
        return ImageFiles(list_images(path), config.loop)
    if not path.exists():
        near = did_you_mean(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        if not near.startswith("Did you mean"):
            near = "A source is a camera's number, picamera, a video, an image or a folder of images."
        raise DataError(f"There is no source '{text}'.", hint=near)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        read_image(path)  # a single image must be good
        return ImageFiles([path], config.loop)
    return VideoFile(path, config.loop)


def check_frame(frame: object) -> npt.NDArray[np.uint8]:
    """``frame`` if it is a picture. Raises BadFrameError: drivers hand out empty ones after a disturbed transfer."""
    if not isinstance(frame, np.ndarray) or frame.size == 0:
        raise BadFrameError("a frame is empty")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise BadFrameError(f"a frame is {frame.dtype} {list(frame.shape)}, not 8-bit colour")
    return frame


class V4L2Camera:
    """``/dev/video<index>`` by OpenCV."""

    live = True

    def __init__(self, index: int, size: tuple[int, int]) -> None:
        """``size`` (H, W) is asked for; the camera may give another. Raises UsageError where it does not open."""
        with native_stderr_silenced():
            self._capture = cv2.VideoCapture(index, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            self._capture.release()
            raise UsageError(f"Camera {index} cannot be opened: {_why_not(index)}.", hint=_cameras())
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[1])
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[0])
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an old frame is worth nothing
        self.fps: float | None = _speed(self._capture)

    def read(self) -> npt.NDArray[np.uint8]:
        """See Source.read; after an unplugging OpenCV may wait ten seconds."""
        try:
            done, frame = self._capture.read()
        except cv2.error as error:
            raise BadFrameError("a frame cannot be decoded") from error
        if not done:
            raise SourceLostError("the camera gives no more frames")
        return check_frame(frame)

    def close(self) -> None:
        """See Source.close."""
        self._capture.release()


class VideoFile:
    """A clip that OpenCV can read."""

    live = False

    def __init__(self, path: Path, loop: bool) -> None:
        """Raises DataError for what is no video."""
        self._path, self._loop = path, loop
        with native_stderr_silenced():
            self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            self._capture.release()
            raise DataError(f"'{path}' cannot be read as a video.", hint="Is it complete? Try: ffprobe FILE")
        self.fps: float | None = _speed(self._capture)
        self._said = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._given = 0

    def read(self) -> npt.NDArray[np.uint8]:
        """See Source.read."""
        done, frame = self._next()
        if not done and self._loop and self._given:
            # Not by seeking: that goes to the nearest key frame, which some containers do not have at the start.
            self._capture.release()
            self._capture = cv2.VideoCapture(str(self._path))
            self._given = 0
            done, frame = self._next()
        if not done:
            if not self._given:
                raise DataError(f"'{self._path}' holds no frame that can be decoded.")
            raise EndOfFramesError
        self._given += 1
        return check_frame(frame)

    @property
    def cut_short(self) -> str:
        """ "12 of 300 frames" where fewer came out than the file announced, else ""."""
        return f"{self._given} of {self._said:.0f} frames" if 0 < self._given < self._said - 1 else ""

    def close(self) -> None:
        """See Source.close."""
        self._capture.release()

    def _next(self) -> tuple[bool, object]:
        try:
            return self._capture.read()
        except cv2.error as error:
            raise BadFrameError("a frame cannot be decoded") from error


class ImageFiles:
    """Images one after the other."""

    live = False
    fps: float | None = None

    def __init__(self, paths: Sequence[Path], loop: bool) -> None:
        self._paths, self._loop = paths, loop
        self._place = 0
        self._good = False
        #: A single image is decoded once.
        self._only: npt.NDArray[np.uint8] | None = None

    def read(self) -> npt.NDArray[np.uint8]:
        """See Source.read. Raises DataError when a whole round had no good image."""
        if self._place == len(self._paths):
            if not self._good:
                raise DataError(f"None of the {len(self._paths)} images in {self._paths[0].parent} can be read.")
            if not self._loop:
                raise EndOfFramesError
            self._place = 0
        path = self._paths[self._place]
        self._place += 1
        if self._only is not None:
            return self._only
        try:
            frame: npt.NDArray[np.uint8] = np.ascontiguousarray(read_image(path)[:, :, ::-1])
        except DataError as error:
            raise BadFrameError(str(error)) from error
        self._good = True
        if len(self._paths) == 1:
            self._only = frame
        return frame

    def close(self) -> None:
        """See Source.close."""


def _speed(capture: cv2.VideoCapture) -> float | None:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if 0.1 <= fps <= 1000 else None  # 0 and NaN where it is not known


def _why_not(index: int) -> str:
    path = _DEVICES / f"video{index}"
    if not path.exists():
        return f"there is no {path}"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"no permission for {path} (sudo usermod -aG video $USER, then log in again)"
    return "it gives no pictures, or another program uses it"


def _cameras() -> str:
    found = sorted(path.name for path in _DEVICES.glob("video*")) if _DEVICES.is_dir() else []
    there = f"There is {', '.join(found)}. " if found else "No camera was found. "
    return f"{there}Pi cameras on the ribbon cable: --source picamera"
