"""The Raspberry Pi's own camera, by picamera2. That comes from apt with the system's libcamera, not from pip."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segformer_edge.camera.errors import SourceLostError
from segformer_edge.camera.sources import check_frame
from segformer_edge.errors import UsageError

#: Seconds without a frame after which the camera counts as gone.
_WAIT = 5.0


class PiCamera:
    """The first camera that libcamera finds."""

    live = True
    fps: float | None = None

    def __init__(self, size: tuple[int, int]) -> None:
        """Frames of ``size`` (H, W). Raises UsageError without picamera2 or a camera."""
        try:
            from picamera2 import Picamera2
        except ModuleNotFoundError as error:
            raise UsageError(
                f"The Pi's camera needs {error.name}, which this Python does not have.",
                hint="sudo apt install -y python3-picamera2, and make the venv with --system-site-packages; "
                "USB cameras: --source 0",
            ) from error
        except (ImportError, ValueError) as error:  # its compiled parts want the numpy they were built against
            raise UsageError(
                f"picamera2 does not load: {error}.",
                hint="On Bookworm: pip install 'numpy<2' 'opencv-python-headless<4.12', as the system's numpy is 1.24.",
            ) from error
        self._camera: Any = None
        try:
            self._camera = Picamera2()
            # libcamera names formats by their bytes in a word: its RGB888 lies in memory as OpenCV's BGR.
            main = {"size": (size[1], size[0]), "format": "RGB888"}
            self._camera.configure(self._camera.create_video_configuration(main=main))
            self._camera.start()
        except (IndexError, RuntimeError) as error:
            self.close()
            raise UsageError(
                f"The Pi's camera cannot be opened: {str(error) or type(error).__name__}.",
                hint="rpicam-hello --list-cameras shows what is connected; the ribbon cable must be in before power.",
            ) from error

    def read(self) -> npt.NDArray[np.uint8]:
        """See Source.read."""
        try:
            return check_frame(self._camera.wait(self._camera.capture_array("main", wait=False), timeout=_WAIT))
        except (TimeoutError, RuntimeError) as error:
            raise SourceLostError(f"no frame in {_WAIT:.0f} s") from error

    def close(self) -> None:
        """See Source.close."""
        if self._camera is not None:
            self._camera.close()
