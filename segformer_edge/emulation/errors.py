"""What goes wrong with an emulated device."""

from __future__ import annotations

from segformer_edge.errors import SegformerEdgeError, UsageError

PREPARE = "python -m segformer_edge.emulation prepare"


class EmulationError(SegformerEdgeError):
    """Building the emulated device failed, or a program on it ended unexpectedly (exit code 1)."""


class NotPreparedError(UsageError):
    """The emulated device is not there, or was built for other versions (exit code 2)."""

    def __init__(self, architecture: str, reason: str, addition: str = "") -> None:
        command = f"{PREPARE} {architecture}"
        super().__init__(
            f"The emulated {architecture} {reason}.",
            hint=f"Run: {command} --with {addition}" if addition else f"make arm-setup, or: {command}",
        )
