"""Options as Python callers give them, checked as those of the command line are."""

from __future__ import annotations

from collections.abc import Sequence

from segformer_edge.cli import parse_bytes, parse_size
from segformer_edge.errors import UsageError

#: A side of a square, (height, width), or what ``--size`` takes.
Size = int | tuple[int, int] | str


def size_of(value: Size | None) -> tuple[int, int] | None:
    """(height, width) in pixels, multiples of 32. Raises UsageError."""
    if value is None:
        return None
    return parse_size("x".join(map(str, value)) if isinstance(value, tuple | list) else str(value))


def bytes_of(value: int | str | None) -> int | None:
    """``2 * 2**20`` or ``"2M"`` -> bytes. Raises UsageError."""
    return None if value is None else parse_bytes(str(value))


def names_of(value: Sequence[str] | str | None) -> list[str] | None:
    """``["tflite", "onnx"]`` or ``"tflite,onnx"`` -> names."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    return [name for part in parts if (name := part.strip())]


def at_least(minimum: int, **options: int | None) -> None:
    """Raise UsageError where one of ``options`` is given and below ``minimum``."""
    for name, value in options.items():
        if value is not None and value < minimum:
            raise UsageError(f"--{name.replace('_', '-')} is at least {minimum}; got {value}.")
