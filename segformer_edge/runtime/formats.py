"""The table of file formats: which suffix, which runtime class. Plain data and cheap checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    #: Raises ArtifactError for another kind of file and for a damaged one (segformer_edge/runtime/structure).
    check: Callable[[Path], None]


def check_tflite(path: Path) -> None:
    """A TFLite flatbuffer carries its identifier in bytes 4 to 8."""
    from segformer_edge.runtime.structure.tflite import check_structure

    with _opened(path, 8) as data:
        if data[4:8] != b"TFL3":
            raise ArtifactError(f"'{path}' is not a TFLite model: it begins with {bytes(data[:8])!r}.")
        check_structure(data)


def check_executorch(path: Path) -> None:
    """A .pte carries its identifier in bytes 4 to 8, and behind it a header with the sizes of program and segments."""
    from segformer_edge.runtime.structure.executorch import check_structure

    with _opened(path, 48) as data:
        if data[4:6] != b"ET" or not data[6:8].isdigit():
            raise ArtifactError(f"'{path}' is not an ExecuTorch program: it begins with {bytes(data[:8])!r}.")
        check_structure(data)


def check_openvino(path: Path) -> None:
    """The .xml is text with a <net> element, and the .bin beside it has the weights."""
    from segformer_edge.runtime.structure.openvino import check_structure

    with _opened(path, 16) as data:
        if b"<net" not in data[:4096]:
            raise ArtifactError(f"'{path}' is not an OpenVINO model: it has no <net> element.")
        check_structure(data, path.with_suffix(".bin"))


def check_onnx(path: Path) -> None:
    """ONNX is a bare protobuf without an identifier."""
    from segformer_edge.runtime.structure.onnx import check_structure

    with _opened(path, 16) as data:
        check_structure(memoryview(data), path.parent)


_ROOM = "segformer_edge.runtime"
#: Files of a folder that a message names.
_NAMED = 8
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
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder.", hint=f"Name a file in it{_listed(path)}.")
    described = path.with_suffix("")
    if suffix == ".json" and described.suffix.lower() in FORMAT_OF_SUFFIX and described.is_file():
        raise UsageError(f"'{path}' is a sidecar.", hint=f"Name the file it describes: {described}")
    near = nearest(suffix, FORMAT_OF_SUFFIX)
    meant = path.with_suffix(near) if near else path
    hint = f"Did you mean '{meant}'?" if near and meant.is_file() else ""
    if not hint and (beside := _listed(path.parent)):
        hint = f"Exported files beside it{beside}."
    known = " ".join(FORMAT_OF_SUFFIX)
    raise UsageError(f"'{path}' is no exported file: its name ends in none of {known}.", hint=hint)


def exported_files(folder: Path) -> list[Path]:
    """The files in ``folder`` that are named as exported ones are, sorted; none where it cannot be read."""
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in FORMAT_OF_SUFFIX and path.is_file())
    return []


def _listed(folder: Path) -> str:
    found = ", ".join(str(path) for path in exported_files(folder)[:_NAMED])
    return f": {found}" if found else ""


@contextmanager
def _opened(path: Path, minimum: int) -> Iterator[bytes]:
    """The file's content; an ArtifactError raised inside that does not name the file gets its name and a hint."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"Cannot read '{path}': {error.strerror or error}.") from error
    if len(data) < minimum:
        raise ArtifactError(f"'{path}' is cut short: it has only {len(data)} bytes.")
    try:
        yield data
    except ArtifactError as error:
        if str(path) in error.args[0]:
            raise
        raise ArtifactError(
            f"'{path}' is not loaded: {error.args[0]}.",
            hint="Copy or export it again; python -m segformer_edge.quantize writes such files.",
        ) from error
