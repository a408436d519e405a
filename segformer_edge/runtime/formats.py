"""The table of file formats: which suffix, which runtime class. Plain data and cheap checks."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.suggestions import nearest


@dataclass(frozen=True)
class Format:
    """One exported file format and where its runtime lives."""

    name: str
    suffix: str
    #: Files of the same stem that the runtime reads besides the named one.
    companions: tuple[str, ...]
    module: str
    runtime: str
    #: Raises ArtifactError if the file's head says that it is something else or cut short. Native loaders trust
    #: their input: a truncated flatbuffer can end the whole process.
    check: Callable[[Path], None]


def check_tflite(path: Path) -> None:
    """A TFLite flatbuffer carries its identifier in bytes 4 to 8."""
    head = _head(path, 8)
    if head[4:8] != b"TFL3":
        raise ArtifactError(f"'{path}' is not a TFLite model: it begins with {head[:8]!r}.")


def check_executorch(path: Path) -> None:
    """A .pte carries its identifier in bytes 4 to 8, and behind it a header with the sizes of program and segments."""
    head = _head(path, 48)
    if head[4:6] != b"ET":
        raise ArtifactError(f"'{path}' is not an ExecuTorch program: it begins with {head[:8]!r}.")
    if head[8:12] == b"eh00":
        length, program_bytes, segment_offset, segment_bytes = struct.unpack("<IQQQ", head[12:40])
        segment_bytes = segment_bytes if length >= 32 else 0
        needed = max(program_bytes, segment_offset + segment_bytes)
        if path.stat().st_size < needed:
            raise ArtifactError(f"'{path}' is cut short: {path.stat().st_size} of {needed} bytes are there.")


def check_openvino(path: Path) -> None:
    """The .xml is text with a <net> element."""
    if b"<net" not in _head(path, 16, read=4096):
        raise ArtifactError(f"'{path}' is not an OpenVINO model: it has no <net> element.")


def check_onnx(path: Path) -> None:
    """ONNX is a bare protobuf without an identifier; onnxruntime's parser says what is wrong with it."""
    _head(path, 16)


_ROOM = "segformer_edge.runtime"
FORMATS: tuple[Format, ...] = (
    Format("executorch", ".pte", (), f"{_ROOM}.executorch", "ExecuTorchRuntime", check_executorch),
    Format("tflite", ".tflite", (), f"{_ROOM}.tflite", "TFLiteRuntime", check_tflite),
    Format("openvino", ".xml", (".bin",), f"{_ROOM}.openvino", "OpenVINORuntime", check_openvino),
    Format("onnx", ".onnx", (), f"{_ROOM}.onnx", "ONNXRuntime", check_onnx),
    # Flatbuffers of the same form, which their metadata tell apart.
    Format("tflm", ".tflite", (), f"{_ROOM}.tflm", "TFLMRuntime", check_tflite),
)
RUNTIMES: dict[str, Format] = {entry.name: entry for entry in FORMATS}
#: The first of those that share a suffix.
FORMAT_OF_SUFFIX: dict[str, Format] = {}
for _entry in FORMATS:
    FORMAT_OF_SUFFIX.setdefault(_entry.suffix, _entry)


def format_of(path: Path) -> Format:
    """The format of an artifact by its suffix. Raises UsageError for any other suffix, with the nearest one."""
    suffix = path.suffix.lower()
    if suffix in FORMAT_OF_SUFFIX:
        return FORMAT_OF_SUFFIX[suffix]
    for entry in FORMATS:
        if suffix in entry.companions:
            raise UsageError(f"'{path}' holds only the weights.", hint=f"Name the {entry.suffix} file beside it.")
    if suffix == ".json":
        raise UsageError(f"'{path}' is a sidecar.", hint=f"Name the file it describes: {path.with_suffix('')}")
    near = nearest(suffix, FORMAT_OF_SUFFIX)
    hint = f"Did you mean '{path.with_suffix(near)}'?" if near else ""
    known = " ".join(FORMAT_OF_SUFFIX)
    raise UsageError(f"'{path}' is no exported file: its name ends in none of {known}.", hint=hint)


def _head(path: Path, minimum: int, read: int | None = None) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(read or minimum)
    except OSError as error:
        raise ArtifactError(f"Cannot read '{path}': {error.strerror or error}.") from error
    if len(head) < minimum:
        raise ArtifactError(f"'{path}' is cut short: it has only {len(head)} bytes.")
    return head
