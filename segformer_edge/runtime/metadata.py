"""The sidecar ``<file>.json`` of an exported file: what goes in, what comes out, where it came from, its hashes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.jsonfile import Fields, is_plain_name, read_json, write_json
from segformer_edge.runtime.formats import RUNTIMES, format_of

SCHEMA_VERSION = 1
LAYOUTS = ("nchw", "nhwc")
INPUT_DTYPES = ("float32", "uint8", "int8")
LOGITS_DTYPES = ("float32", "int8", "uint8", "int16")
LABELS_DTYPES = ("uint8", "int8", "int16", "int32", "int64")
#: Ends the target's name in the sidecar of a file that computes on the host what an NPU's file computes there.
HOST = "-host"
_CHUNK = 1 << 20
#: The least and the largest normal float32, as which runtimes keep scales.
_SCALES = (2.0**-126, (2 - 2.0**-23) * 2.0**127)
#: Integers of the quantized dtypes, from the least to the largest.
_ZERO_POINTS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-(1 << 15), (1 << 15) - 1)}


@dataclass(frozen=True)
class InputSpec:
    """The network's only input: shape (1, 3, H, W) or (1, H, W, 3). ``scale`` and ``zero_point`` if it is quantized."""

    name: str | None
    shape: tuple[int, ...]
    layout: str
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class OutputSpec:
    """The network's only output. ``kind`` "logits": (1, C, h, w) or (1, h, w, C); "labels": (1, h, w), one class each.

    A label map may carry a channel of one, where its layout says.
    """

    name: str | None
    kind: str
    shape: tuple[int, ...]
    layout: str
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Normalisation:
    """``(image / 255 - mean) / std`` per channel, red first."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class WeightsSource:
    """Where the weights came from and under which licence; ``sha256`` of the checkpoint file where it was one."""

    source: str
    sha256: str | None
    licence: str | None


@dataclass(frozen=True)
class ArtifactMetadata:
    """Everything a device needs besides the exported file itself. Field for field what the sidecar holds."""

    format: str
    file: str
    model: str
    target: str
    size: tuple[int, int]
    input: InputSpec
    output: OutputSpec
    normalisation: Normalisation
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    recipe: str
    weights: WeightsSource
    tools: Mapping[str, str]
    #: SHA-256 of every file that belongs to the artifact, by name in the same folder.
    files: Mapping[str, str]
    encodings_sha256: str | None = None
    schema_version: int = field(default=SCHEMA_VERSION)

    def to_json(self) -> dict[str, Any]:
        """The sidecar as a JSON-ready dict, ``schema_version`` first."""
        value = asdict(self)
        return {"schema_version": value.pop("schema_version"), **value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "metadata") -> ArtifactMetadata:
        """Build and validate; raises ArtifactError naming ``where`` and the field."""
        f = Fields(value, where, ArtifactError)
        version = f.integer("schema_version")
        if version != SCHEMA_VERSION:
            f.fail("schema_version", f"is {version}; this version of segformer-edge reads {SCHEMA_VERSION}")
        i, o, n, w = (f.section(key) for key in ("input", "output", "normalisation", "weights"))
        height, width = f.integers("size", length=2, minimum=1)
        kind = o.text("kind", ("logits", "labels"))
        metadata = cls(
            format=f.text("format", tuple(RUNTIMES)),
            file=f.text("file"),
            model=f.text("model"),
            target=f.text("target"),
            size=(height, width),
            input=InputSpec(
                name=i.optional("name", i.text),
                shape=i.integers("shape", length=4, minimum=1),
                layout=i.text("layout", LAYOUTS),
                dtype=i.text("dtype", INPUT_DTYPES),
                scale=i.optional("scale", i.number),
                zero_point=i.optional("zero_point", i.integer),
            ),
            output=OutputSpec(
                name=o.optional("name", o.text),
                kind=kind,
                shape=o.integers("shape", length=4 if kind == "logits" else None, minimum=1),
                layout=o.text("layout", LAYOUTS),
                dtype=o.text("dtype", LOGITS_DTYPES if kind == "logits" else LABELS_DTYPES),
                scale=o.optional("scale", o.number),
                zero_point=o.optional("zero_point", o.integer),
            ),
            normalisation=Normalisation(_triple(n.numbers("mean", length=3)), _triple(n.numbers("std", length=3))),
            class_names=f.texts("class_names"),
            palette=_palette(f),
            recipe=f.text("recipe"),
            weights=WeightsSource(
                source=w.text("source"),
                sha256=w.optional("sha256", w.text),
                licence=w.optional("licence", w.text),
            ),
            tools=f.mapping("tools"),
            files=f.mapping("files"),
            encodings_sha256=f.optional("encodings_sha256", f.text),
        )
        metadata._check(f)
        return metadata

    def validate(self) -> None:
        """Raise ArtifactError if a field is out of its range or two fields contradict each other."""
        ArtifactMetadata.from_json(_lists(self.to_json()))

    def save(self, artifact: str | os.PathLike[str]) -> Path:
        """Write the sidecar of ``artifact`` atomically and return its path. Raises ArtifactError, DiskFullError."""
        self.validate()
        path = sidecar_path(artifact)
        write_json(path, self.to_json())
        return path

    @classmethod
    def load(cls, artifact: str | os.PathLike[str], verify: bool = True) -> ArtifactMetadata:
        """Read the sidecar of ``artifact``; with ``verify`` also compare every file with its hash.

        Raises UsageError for a name that is no artifact's, ArtifactError where the file or its sidecar is missing,
        damaged, or was changed after export.
        """
        artifact = Path(artifact)
        expected = format_of(artifact)
        if artifact.is_dir():
            raise UsageError(f"'{artifact}' is a folder.", hint=f"Name a file in it, like model{expected.suffix}.")
        if not artifact.exists():
            raise ArtifactError(f"There is no file '{artifact}'.", hint="python -m segformer_edge.quantize writes it.")
        path = sidecar_path(artifact)
        if not path.exists():
            raise ArtifactError(
                f"'{artifact.name}' has no metadata: '{path}' is missing.",
                hint="Copy the .json file that was exported with it beside it.",
            )
        if path.resolve().parent != artifact.parent.resolve():
            raise ArtifactError(f"'{path}' is a link out of its folder.", hint="Copy the file itself beside the other.")
        metadata = cls.from_json(read_json(path, ArtifactError), where=f"'{path}'")
        if RUNTIMES[metadata.format].suffix != expected.suffix:
            raise ArtifactError(f"'{path}' describes a file of format {metadata.format}, not {expected.name}.")
        if metadata.file != artifact.name:
            raise ArtifactError(
                f"'{path}' describes '{metadata.file}', not '{artifact.name}'.",
                hint="Exported files keep their names; copy the folder as a whole.",
            )
        for name, digest in metadata.files.items():
            file = _inside(artifact.parent, name, path)
            if verify and sha256_of(file) != digest:
                raise ArtifactError(
                    f"'{file}' was changed after export: its SHA-256 is not the one in '{path.name}'.",
                    hint=_why_changed(artifact.parent),
                )
        return metadata

    def _check(self, f: Fields) -> None:
        entry = RUNTIMES[self.format]
        if not self.file.endswith(entry.suffix):
            f.fail("file", f"is '{self.file}', which does not end in {entry.suffix}")
        for name, digest in self.files.items():
            if not is_plain_name(name):
                f.fail("files", f"names {name!r:.200}, which is not a plain file name in the same folder")
            if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                f.fail(f"files.{name}", "is not a SHA-256 in lower-case hexadecimal")
        for suffix in ("", *entry.companions):
            needed = Path(self.file).with_suffix(suffix).name if suffix else self.file
            if needed not in self.files:
                f.fail("files", f"has no hash of '{needed}'")
        self._check_tensors(f)
        if min(self.normalisation.std) <= 0:
            f.fail("normalisation.std", f"is {list(self.normalisation.std)}; deviations are positive")

    def _check_tensors(self, f: Fields) -> None:
        height, width = self.size
        shape = (1, 3, height, width) if self.input.layout == "nchw" else (1, height, width, 3)
        if self.input.shape != shape:
            f.fail("input.shape", f"is {list(self.input.shape)}; with this size and layout it is {list(shape)}")
        for name, tensor in (("input", self.input), ("output", self.output)):
            if tensor.scale is not None and not _SCALES[0] <= tensor.scale <= _SCALES[1]:
                f.fail(f"{name}.scale", f"is {tensor.scale}; a scale is positive, and a float32")
            if tensor.zero_point is not None and tensor.dtype in _ZERO_POINTS:
                low, high = _ZERO_POINTS[tensor.dtype]
                if not low <= tensor.zero_point <= high:
                    f.fail(f"{name}.zero_point", f"is {tensor.zero_point}; {tensor.dtype} holds {low} to {high}")
            quantized = tensor.dtype != "float32" and not (tensor is self.output and self.output.kind == "labels")
            if quantized and (tensor.scale is None or tensor.zero_point is None):
                f.fail(f"{name}.scale", f"or zero_point is null, but {tensor.dtype} needs both")
        classes = len(self.class_names)
        if not 1 <= classes <= 255:
            f.fail("class_names", f"has {classes} entries, not 1 to 255")
        if len(self.palette) != classes:
            f.fail("palette", f"has {len(self.palette)} colours for {classes} classes")
        output = self.output.shape
        if self.output.kind == "logits":
            channels = output[1] if self.output.layout == "nchw" else output[3]
            if output[0] != 1 or channels != classes:
                f.fail("output.shape", f"is {list(output)}; one image and {classes} classes are expected")
        elif len([side for side in output if side != 1]) > 2 or len(output) not in (2, 3, 4):
            f.fail("output.shape", f"is {list(output)}, which is not one label map")


def sidecar_path(artifact: str | os.PathLike[str]) -> Path:
    """``model.tflite`` -> ``model.tflite.json``."""
    artifact = Path(artifact)
    return artifact.with_name(artifact.name + ".json")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file in lower-case hexadecimal. Raises ArtifactError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ArtifactError(f"Cannot read '{os.fspath(path)}': {error.strerror or error}.") from error
    return digest.hexdigest()


def _inside(folder: Path, name: str, sidecar: Path) -> Path:
    """``folder / name``, which must be a regular file that really lies in ``folder``."""
    file = folder / name
    if not file.exists():
        raise ArtifactError(f"'{file}' is missing, and '{sidecar.name}' lists it as part of the artifact.")
    if not file.is_file() or file.resolve().parent != folder.resolve():
        raise ArtifactError(f"'{file}' is not a file of its own in that folder; '{sidecar.name}' lists it.")
    return file


def _why_changed(folder: Path) -> str:
    from segformer_edge.export.staging import unfinished

    if unfinished(folder.resolve()):
        return "A run was killed while it replaced this folder's files; the next run with this --out finishes that."
    return "Copy the folder again, or export it again with python -m segformer_edge.quantize."


def _triple(values: tuple[float, ...]) -> tuple[float, float, float]:
    return values[0], values[1], values[2]


def _palette(f: Fields) -> tuple[tuple[int, int, int], ...]:
    colours = f.raw("palette")
    if not isinstance(colours, list):
        f.fail("palette", "is not a list")
    for colour in colours:
        if not (
            isinstance(colour, list)
            and len(colour) == 3
            and all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in colour)
        ):
            f.fail("palette", f"holds {colour!r}, not [red, green, blue] of 0 to 255")
    return tuple((colour[0], colour[1], colour[2]) for colour in colours)


def _lists(value: Any) -> Any:
    """Tuples as lists, as they come back from JSON."""
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
