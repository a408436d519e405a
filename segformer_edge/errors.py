"""Errors a user can act on, each with the exit code of the command line: 1 failed, 2 wrong usage or input."""

from __future__ import annotations


class SegformerEdgeError(Exception):
    """What happened and the value met; ``hint`` is the next thing to try. Printed without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  {self.hint}" if self.hint else message


class UsageError(SegformerEdgeError):
    """The command, its options or its input files are wrong (exit code 2)."""

    exit_code = 2


class CheckpointError(UsageError):
    """A checkpoint cannot be read or does not fit the model; names the file and the key."""


class DataError(UsageError):
    """A data set, calibration folder or image cannot be used; names the path."""


class ArtifactError(SegformerEdgeError):
    """An exported file or its metadata is missing, damaged or was changed after export: input like a checkpoint."""

    exit_code = UsageError.exit_code


class MissingBackendError(UsageError):
    """A runtime or exporter is not installed; the hint is the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed.", hint=f"pip install 'segformer-edge[{extra}]'")
