"""Arrays through a pipe: each one in numpy's .npy format behind its length in eight bytes. No pickle."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

import numpy as np

_LENGTH = struct.Struct("<Q")


def write_frame(stream: BinaryIO, content: bytes) -> None:
    """Send ``content`` at once."""
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame, or None where the other side has closed. Raises EOFError for one that is cut short."""
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise EOFError("a frame's length is cut short")
    (length,) = _LENGTH.unpack(head)
    content = stream.read(length)
    if len(content) < length:
        raise EOFError(f"{len(content)} of a frame's {length} bytes arrived")
    return content


def pack(array: np.ndarray) -> bytes:
    """``array`` as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack(content: bytes) -> np.ndarray:
    """The array of ``pack``. Raises ValueError for anything else."""
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return array
