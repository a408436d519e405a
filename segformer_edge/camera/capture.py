"""The capture thread: reads the source, passes over what is damaged, opens a camera again that went away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segformer_edge.camera.config import CameraConfig
from segformer_edge.camera.controls import Controls
from segformer_edge.camera.errors import BadFrameError, CameraError, EndOfFramesError, SourceLostError
from segformer_edge.camera.latest import ClosedError, LatestFrame
from segformer_edge.camera.sources import IMAGES_FPS, Source, VideoFile
from segformer_edge.errors import UsageError
from segformer_edge.progress import Progress

#: Seconds between two attempts to open a camera again.
RETRY = 1.0


@dataclass(frozen=True)
class Frame:
    """One picture: its number in the source, uint8 BGR (H, W, 3)."""

    number: int
    image: npt.NDArray[np.uint8]


class Capture(threading.Thread):
    """Runs until the source or the program ends; ``error`` is what ended it early."""

    def __init__(
        self,
        config: CameraConfig,
        source: Source,
        reopen: Callable[[], Source],
        slot: LatestFrame[Frame],
        controls: Controls,
        tell: Progress,
    ) -> None:
        super().__init__(name="capture", daemon=True)  # a driver that hangs must not keep the program alive
        self._config, self._reopen, self._slot, self._controls, self._tell = config, reopen, slot, controls, tell
        self._source: Source | None = source
        self._live = source.live
        self._interval = 1 / (source.fps or IMAGES_FPS) if config.realtime and not source.live else 0.0
        self.captured = self.corrupt = self.lost = 0
        self.error: Exception | None = None
        #: When the last good frame came, or waiting for one began (time.monotonic).
        self.good_at = time.monotonic()

    def run(self) -> None:
        try:
            self._loop()
        except ClosedError:
            pass
        except Exception as error:  # the main thread raises it
            self.error = error
        finally:
            self._let_go()
            self._slot.close()

    def _loop(self) -> None:
        self.good_at = due = time.monotonic()
        while not self._controls.ended.is_set():
            if not self._controls.running:
                self._pause()
                due = time.monotonic()
                continue
            try:
                image = self._read()
            except EndOfFramesError:
                if isinstance(self._source, VideoFile) and self._source.cut_short:
                    self._tell.warn(f"'{self._config.source}' is damaged: {self._source.cut_short} could be decoded.")
                return
            if image is None:
                continue
            self.good_at = time.monotonic()
            frame = Frame(self.captured, image)
            self.captured += 1
            if self._interval:
                due = max(due + self._interval, self.good_at - self._interval)
                self._controls.ended.wait(max(0.0, due - self.good_at))
            if self._live or self._interval:
                self._slot.put(frame)
            else:
                self._slot.put_next(frame)

    def _read(self) -> npt.NDArray[np.uint8] | None:
        """A good frame, or None after waiting a little for one. Raises CameraError when patience is at its end."""
        try:
            if self._source is None:
                self._source = self._reopen()
            return self._source.read()
        except BadFrameError as error:
            self.corrupt += 1
            if self.corrupt == 1:
                self._tell.warn(f"Passing over damaged frames, the first: {error}.")
            reason, pause = str(error), 0.0 if not self._live else 0.01
        except SourceLostError as error:
            self.lost += 1
            self._tell.warn(f"Source {self._config.source}: {error}; trying again.")
            self._let_go()
            reason, pause = str(error), RETRY
        except UsageError as error:
            if not self._live:
                raise
            reason, pause = str(error), RETRY
        if self._live and time.monotonic() - self.good_at > self._config.patience:
            raise CameraError(
                f"Camera {self._config.source} gave no picture for {self._config.patience:g} s: "
                f"{reason.splitlines()[0].rstrip('.')}.",
                hint="Check the cable and the power supply (vcgencmd get_throttled), then run it again.",
            )
        self._controls.ended.wait(pause)
        return None

    def _pause(self) -> None:
        """A camera that nobody looks at is switched off; a file keeps its place."""
        if self._live:
            self._let_go()
        self._controls.wait_running(0.2)
        self.good_at = time.monotonic()

    def _let_go(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None
