"""Reads image and label files; whatever cannot be read is a DataError that names the path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from segformer_edge.errors import DataError

#: File name endings taken for images, in lower case.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Image files directly in ``folder``, sorted by name; hidden files are left out.

    Raises DataError when the folder is missing, is a file, cannot be listed, or holds no image.
    """
    folder = Path(folder)
    if not folder.exists():
        raise DataError(f"There is no folder {folder}.", hint=_nearest_folder(folder))
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, not a folder of images.", hint=f"Give its folder: {folder.parent}")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"Cannot list {folder}: {error.strerror}.") from None
    images = [p for p in entries if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()]
    if not images:
        inside = next((p for p in entries if p.is_dir() and not p.name.startswith(".")), None)
        also = f" Did you mean {inside}?" if inside else ""
        raise DataError(
            f"There is no image in {folder} ({len(entries)} other entries).",
            hint=f"Images end in {', '.join(IMAGE_SUFFIXES)}.{also}",
        )
    return images


def read_image(path: str | os.PathLike) -> np.ndarray:
    """An image file as uint8 RGB (H, W, 3); grey becomes RGB, alpha is dropped, EXIF orientation is ignored.

    Orientation is ignored because label maps carry none. Raises DataError for a file that is missing, empty,
    truncated or no image.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return np.ascontiguousarray(_decode(Path(path), flags)[:, :, ::-1])


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """A label map file as uint8 (H, W), values as stored (an indexed-colour PNG gives its indices).

    Raises DataError for a file that is missing, unreadable, or has more than one 8-bit channel.
    """
    path = Path(path)
    if _is_indexed_png(path):
        return _read_indexed_png(path)
    labels = _decode(path, cv2.IMREAD_UNCHANGED)
    if labels.ndim == 3 and (labels[:, :, 0] == labels[:, :, 1]).all() and (labels[:, :, 0] == labels[:, :, 2]).all():
        labels = labels[:, :, 0]  # grey saved as RGB
    if labels.ndim != 2:
        raise DataError(
            f"{path} has {labels.shape[2]} channels; a label map has one.",
            hint="Save class indices as an 8-bit grey PNG, not their colours.",
        )
    if labels.dtype != np.uint8:
        if labels.dtype != np.uint16 or labels.max(initial=0) > 255:
            raise DataError(f"{path} holds {labels.dtype} values up to {labels.max()}; labels must fit 0 to 255.")
        labels = labels.astype(np.uint8)
    return np.ascontiguousarray(labels)


def _decode(path: Path, flags: int) -> np.ndarray:
    """Decode with OpenCV, checking what it lets pass: short files decode to grey rows."""
    return _decoded(path, _bytes(path), flags)


def _decoded(path: Path, data: bytes, flags: int) -> np.ndarray:
    problem = _truncation(data)
    if problem:
        raise DataError(f"{path} is damaged: {problem}.", hint="Copy or download it again, or take it out.")
    try:
        with _quiet_opencv():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"{path} cannot be decoded: {error.err or error}.") from None
    if pixels is None or pixels.size == 0:
        start = data[:12]
        text = all(32 <= byte < 127 or byte in (9, 10, 13) for byte in start)
        raise DataError(
            f"{path} is not an image OpenCV can read (it starts with {start!r}).",
            hint="It is a text file named as an image; take it out." if text else "Take it out or convert it to PNG.",
        )
    return pixels


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from None
    if not data:
        raise DataError(f"{path} is empty.", hint="Copy or download it again, or take it out.")
    return data


def _truncation(data: bytes) -> str:
    """Why a JPEG or PNG is cut short, or ''. OpenCV fills the missing rows and says nothing."""
    if data[:3] == b"\xff\xd8\xff" and b"\xff\xd9" not in data[_first_scan(data) :]:
        return "the JPEG has no end marker, so its lower rows are missing"
    if data[:8] == b"\x89PNG\r\n\x1a\n" and b"IEND" not in data:
        return "the PNG has no end chunk, so its lower rows are missing"
    return ""


def _first_scan(data: bytes) -> int:
    """Offset of a JPEG's first scan: beyond the thumbnail in its header, which has an end marker of its own."""
    offset = 2
    while offset + 4 <= len(data) and data[offset] == 0xFF and data[offset + 1] != 0xDA:
        # Padding bytes 0xFF may precede a marker; any other segment tells its length.
        offset += 1 if data[offset + 1] == 0xFF else 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    return offset


def _is_indexed_png(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(26)
    except OSError:
        return False
    return head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 and head[25] == 3


def _read_indexed_png(path: Path) -> np.ndarray:
    """Indices of a colour-mapped PNG (VOC style): OpenCV only gives colours, so ask it for a grey copy of the indices.

    The palette chunk is replaced by a grey ramp, which makes colour and index the same thing.
    """
    import struct
    import zlib

    data = _bytes(path)
    out, offset = bytearray(data[:8]), 8
    while offset + 8 <= len(data):
        (length,) = struct.unpack(">I", data[offset : offset + 4])
        kind = data[offset + 4 : offset + 8]
        chunk = data[offset : offset + 12 + length]
        if kind == b"PLTE":
            ramp = bytes(value for index in range(length // 3) for value in (index, index, index))
            chunk = struct.pack(">I", len(ramp)) + kind + ramp + struct.pack(">I", zlib.crc32(kind + ramp))
        if kind != b"tRNS":
            out += chunk
        offset += 12 + length
        if kind == b"IEND":  # some programs write more behind it
            break
    return np.ascontiguousarray(_decoded(path, bytes(out), cv2.IMREAD_COLOR)[:, :, 0])


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's own log: the DataError says it better. Builds without the logging module stay as they are."""
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging is None:
        yield
        return
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _nearest_folder(folder: Path) -> str:
    """A hint: the folder's nearest existing parent and what is in it."""
    import difflib

    parent = folder.absolute().parent
    while not parent.is_dir():
        parent = parent.parent
    try:
        names = sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        names = []
    near = difflib.get_close_matches(folder.name, names, n=1)
    if near:
        return f"Did you mean {parent / near[0]}?"
    return f"{parent} holds: {', '.join(names[:8]) or 'no folders'}."
