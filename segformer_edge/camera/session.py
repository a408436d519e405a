"""One run of the camera program without its window and page: capture, inference, and what is written to disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from segformer_edge.camera.capture import Capture, Frame
from segformer_edge.camera.config import CameraConfig
from segformer_edge.camera.controls import Controls
from segformer_edge.camera.device import Device, Throttling
from segformer_edge.camera.errors import CameraError
from segformer_edge.camera.latest import ClosedError, LatestFrame, Newest
from segformer_edge.camera.overlay import Painter
from segformer_edge.camera.recorder import Recorder
from segformer_edge.camera.sources import Source
from segformer_edge.camera.statistics import Statistics, Status
from segformer_edge.errors import DataError, SegformerEdgeError
from segformer_edge.jsonfile import write_bytes
from segformer_edge.progress import Progress
from segformer_edge.runtime.latency import FrameTimes

#: Seconds that one status is good for: asking the system for temperature and memory costs a little.
_STATUS_AGE = 0.5
#: Seconds beyond the patience after which a camera's driver counts as hanging.
_HANGS = 15.0


class CanSegment(Protocol):
    """What of a Segmenter is needed here."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def palette(self) -> npt.NDArray[np.uint8]: ...

    def timed(self, image: npt.NDArray[np.uint8], order: str = "rgb") -> tuple[npt.NDArray[np.uint8], FrameTimes]: ...


@dataclass(frozen=True)
class Result:
    """A segmented frame: number, uint8 BGR (H, W, 3) and label map (H, W). Nobody writes into them."""

    number: int
    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


class CameraSession:
    """``start``, then look at ``results`` and ``status()`` while ``running()``, then ``close``."""

    def __init__(
        self,
        segmenter: CanSegment,
        source: Source,
        reopen: Callable[[], Source],
        config: CameraConfig,
        tell: Progress | None = None,
        device: Device | None = None,
    ) -> None:
        self._segmenter, self._config = segmenter, config
        self.device = device or Device()
        self.controls = Controls(len(segmenter.class_names), config.opacity)
        self.painter = Painter(segmenter.class_names, segmenter.palette)
        self.results: Newest[Result] = Newest()
        self.statistics = Statistics()
        self._slot: LatestFrame[Frame] = LatestFrame()
        self._capture = Capture(config, source, reopen, self._slot, self.controls, tell or Progress())
        self._inference = threading.Thread(target=self._segment_all, name="inference", daemon=True)
        self._live = source.live
        self._error: BaseException | None = None
        by_clock = self._live or config.realtime  # late frames are dropped
        self._recorder = (
            None if config.record is None else Recorder(config.record, None if by_clock else source.fps or 5)
        )
        self._unusable = 0
        self._status: tuple[float, Status] | None = None
        self._asked: tuple[float | None, Throttling | None] = (None, None)
        self._asked_at = 0.0
        self._begun = time.monotonic()
        self.seconds = 0.0

    def start(self) -> None:
        """Begin. Raises DataError where the folder of label maps cannot be made."""
        if self._config.labels is not None:
            try:
                self._config.labels.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"Cannot make the folder '{self._config.labels}': {error.strerror}.") from error
        self._begun = time.monotonic()
        self._capture.start()
        self._inference.start()

    def running(self) -> bool:
        """Whether more results may come. Raises what ended capture or inference, CameraError for a hanging driver."""
        hangs = time.monotonic() - self._capture.good_at > self._config.patience + _HANGS
        if self._live and hangs and self._capture.is_alive() and self.controls.running:
            raise CameraError(
                f"Camera {self._config.source} hangs: no answer for {self._config.patience + _HANGS:.0f} s.",
                hint="Plug it in again or restart the board; dmesg may say why.",
            )
        alive = self._inference.is_alive()
        if not alive and (error := self._error or self._capture.error):
            raise error
        return alive

    def close(self, keep_recording: bool) -> None:
        """End all threads and close every file. Raises DiskFullError where the recording turns out to be broken."""
        self.controls.ended.set()
        self._slot.close()
        for thread, patience in ((self._inference, None), (self._capture, 1.0)):
            if thread.ident is not None:  # was started
                thread.join(patience)  # a capture that hangs in its driver ends with the process
        self.results.close()
        self.seconds = time.monotonic() - self._begun
        if self._recorder is not None:
            (self._recorder.finish if keep_recording else self._recorder.abandon)()

    @property
    def recorded(self) -> int | None:
        """Pictures in the recording, None without one."""
        return self._recorder.written if self._recorder is not None else None

    @property
    def captured(self) -> int:
        """Good frames that the source gave."""
        return self._capture.captured

    @property
    def lost(self) -> int:
        """How often the camera went away."""
        return self._capture.lost

    def status(self) -> Status:
        """At most half a second old."""
        now = time.monotonic()
        if self._status is None or now - self._status[0] > _STATUS_AGE:
            if now - self._asked_at > 2 or not self._asked_at:
                self._asked_at, self._asked = now, (self.device.temperature(), self.device.throttling())
            status = Status(
                frames=self.statistics.frames,
                dropped=self._slot.dropped,
                corrupt=self._capture.corrupt + self._unusable,
                fps=self.statistics.fps(),
                latency_ms=self.statistics.latency(),
                memory_bytes=self.device.memory_bytes(),
                temperature=self._asked[0],
                throttling=self._asked[1],
            )
            self._status = (now, status)
        return self._status[1]

    def fresh_status(self) -> Status:
        """The status of this moment."""
        self._status = None
        return self.status()

    def _segment_all(self) -> None:
        try:
            while not self.controls.ended.is_set():
                try:
                    frame = self._slot.take(0.5)
                except ClosedError:
                    return
                if frame is not None:
                    self._segment(frame)
                if self.statistics.frames == self._config.frames:
                    return
        except BaseException as error:
            self._error = error
        finally:
            self.controls.ended.set()
            self._slot.close()

    def _segment(self, frame: Frame) -> None:
        try:
            labels, times = self._segmenter.timed(frame.image, "bgr")
        except DataError:
            self._unusable += 1
            return
        self.statistics.add(times)
        result = Result(frame.number, frame.image, labels)
        if self._config.labels is not None:
            save_labels(self._config.labels, result)
        if self._recorder is not None:
            self._recorder.write(self.painter.annotate(frame.image, labels, self.controls.view, self.status()))
        self.results.put(result)


def save_labels(folder: Path, result: Result) -> None:
    """The label map as ``<number>.png`` in ``folder``, grey values are class numbers. Raises DiskFullError."""
    done, encoded = cv2.imencode(".png", result.labels)
    if not done:
        raise SegformerEdgeError(f"OpenCV cannot encode label map {result.number} as PNG.")
    write_bytes(folder / f"{result.number:06d}.png", encoded.tobytes())
