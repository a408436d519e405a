"""What a run of the camera program was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segformer_edge.errors import UsageError

#: The camera's picture when none is asked for, (height, width): what every webcam and Pi camera gives.
CAMERA_SIZE = (480, 640)


@dataclass(frozen=True)
class CameraConfig:
    """Everything but the model. Raises UsageError for a value out of range or two that contradict each other."""

    #: A number or /dev/videoN, "picamera", a video, an image or a folder of images.
    source: str = "0"
    #: (height, width) that a camera is asked for; files keep their own.
    size: tuple[int, int] = CAMERA_SIZE
    #: Start a file again when it ends.
    loop: bool = False
    #: Play a file at its own speed and drop what comes too late, as from a camera; else each frame is segmented.
    realtime: bool = False
    #: End after so many segmented frames; None: when the source ends.
    frames: int | None = None
    show: bool = False
    #: Port of the page on ``host``; 0 takes a free one, None serves none.
    port: int | None = None
    host: str = "127.0.0.1"
    #: An .mp4 file to write.
    record: Path | None = None
    #: Folder for one grey PNG a frame, class numbers as grey values.
    labels: Path | None = None
    #: Share of the class colours over the picture, 0 to 1.
    opacity: float = 0.5
    #: Seconds that a camera may be away before the program gives up.
    patience: float = 30.0

    def __post_init__(self) -> None:
        for name, value, least in (("--frames", self.frames, 1), ("--port", self.port, 0)):
            if value is not None and value < least:
                raise UsageError(f"{name} is at least {least}; got {value}.")
        if self.port is not None and self.port > 65535:
            raise UsageError(f"A port is at most 65535; got {self.port}.", hint="For example: --serve 8080")
        if not 0 <= self.opacity <= 1:
            raise UsageError(f"--opacity is between 0 and 1; got {self.opacity}.")
        if not 0 <= self.patience <= 86400:
            raise UsageError(f"--patience is between 0 and 86400 seconds; got {self.patience}.")
        if not (min(self.size) >= 16 and max(self.size) <= 8192):
            raise UsageError(f"A camera's picture is 16 to 8192 pixels a side; got {self.size[0]}x{self.size[1]}.")
        if self.record is not None:
            _check_record(self.record)
        if self.labels is not None and self.labels.exists() and not self.labels.is_dir():
            raise UsageError(f"'{self.labels}' is a file, not a folder.", hint="Name a new folder with --labels.")


def _check_record(path: Path) -> None:
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"--record writes .mp4; got '{path}'.", hint=f"Try: --record {path.with_suffix('.mp4')}")
    if path.exists():
        raise UsageError(f"'{path}' exists.", hint="Name another file with --record, or remove it.")
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder '{path.parent}'.", hint=f"mkdir -p '{path.parent}'")
