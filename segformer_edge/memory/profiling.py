"""``profile_file``: everything that can be said about one file's memory, planned and measured, with the gap between."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segformer_edge.errors import ArtifactError, MissingBackendError, UsageError
from segformer_edge.memory.measure import measure
from segformer_edge.memory.measurement import Measurement
from segformer_edge.memory.readers.executorch import read_executorch
from segformer_edge.memory.readers.onnx import read_onnx
from segformer_edge.memory.readers.openvino import read_openvino
from segformer_edge.memory.readers.tflite import read_tflite
from segformer_edge.memory.readers.tflm import read_tflm
from segformer_edge.memory.reading import Reading
from segformer_edge.memory.subjects import COMPILED
from segformer_edge.progress import Progress
from segformer_edge.runtime.base import check_runs_on_cpus
from segformer_edge.runtime.formats import format_of
from segformer_edge.runtime.metadata import ArtifactMetadata, sidecar_path

#: A setup of a runtime other than its default, in measure()'s words.
NO_DELEGATE = "no-delegate"
#: A device whose own interpreter runs here.
MICRO = "tflm"


@dataclass(frozen=True)
class Gap:
    """What an inference was measured to take against what was planned for it, in bytes.

    ``outside`` are estimates of what the plan leaves out, from XNNPACK's known behaviour; nothing else is guessed.
    """

    planned: int
    measured: int
    outside: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Measured beyond the plan."""
        return self.measured - self.planned

    @property
    def unexplained(self) -> int:
        """What neither the plan nor the estimates account for."""
        return self.bytes - sum(self.outside.values())


@dataclass(frozen=True)
class FileProfile:
    """One file on one device. ``measured`` and ``metadata`` are None where there is none; ``notes`` say why."""

    path: Path
    format: str
    file_bytes: int
    on: str
    threads: int
    delegate: bool
    #: Measured in LiteRT's CompiledModel, whose plan is not the one that the Interpreter tells.
    compiled: bool
    metadata: ArtifactMetadata | None
    reading: Reading
    measured: Measurement | None
    notes: tuple[str, ...]

    @property
    def planned(self) -> int | None:
        """Bytes for activations in the plans that are in use; None where the runtime has none or does not say."""
        plans = [plan for plan in self.reading.plans if plan.in_use and plan.bytes is not None]
        return sum((plan.bytes or 0) - plan.weights for plan in plans) if plans else None

    @property
    def outside_plan(self) -> dict[str, int]:
        """Estimates of what delegates take outside the plan; empty without a delegate that is known."""
        workspace = self.reading.workspace_estimate()
        if workspace is None:
            return {}
        return {"XNNPACK's workspace": workspace, "XNNPACK's indirection buffers": self.reading.graph.kept_bytes}

    @property
    def gap(self) -> Gap | None:
        """None where either side is not known, or they are not of the same thing."""
        if self.compiled or self.planned is None or self.measured is None or self.measured.run_split is None:
            return None
        outside = self.outside_plan
        if self.format == "executorch":
            outputs = (tensor.bytes for tensor in self.reading.graph.tensors if tensor.kind == "output")
            outside["the Python binding's copy of the output"] = sum(outputs)
        split = self.measured.run_split
        return Gap(self.planned, split.activations + split.indirection, outside)


def profile_file(
    path: Path,
    *,
    on: str = "host",
    threads: int = 1,
    delegate: bool = True,
    compiled: bool = False,
    measuring: bool = True,
    tell: Progress | None = None,
) -> FileProfile:
    """Read ``path`` and, with ``measuring``, run it in a process of its own on this machine or an emulated CPU.

    ``delegate=False`` runs a ``.tflite`` with built-in kernels alone, ``compiled`` in LiteRT's CompiledModel as our own
    runtime does. Raises UsageError for what cannot be asked of
    this format or device, ArtifactError for a file that is missing, damaged or refused by its runtime.
    """
    tell = tell or Progress()
    form = format_of(path)
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder.", hint=f"Name a file in it, like model{form.suffix}.")
    if not path.exists():
        raise ArtifactError(f"There is no file '{path}'.", hint="python -m segformer_edge.quantize writes it.")
    for option, wanted in (("--no-delegate", not delegate), ("--compiled", compiled)):
        if wanted and form.name != "tflite":
            raise UsageError(f"{option} is for .tflite files; '{path}' is {form.name}.")
    if compiled and not delegate:
        raise UsageError("--compiled runs XNNPACK, --no-delegate does not.", hint="Name one of the two.")
    if threads < 1:
        raise UsageError(f"--threads is at least 1; got {threads}.")
    if on == MICRO and (form.name != "tflite" or compiled or not delegate or threads > 1):
        raise UsageError(
            f"TFLite Micro runs .tflite files, on one thread and without delegates; '{path}' was asked with others."
            if form.name == "tflite"
            else f"TFLite Micro runs .tflite files; '{path}' is {form.name}.",
            hint="python -m segformer_edge.quantize --targets tflm writes one.",
        )
    if on not in ("host", MICRO):
        from segformer_edge.emulation.sysroot import open_cpu

        open_cpu(on)
    form.check(path)
    notes: list[str] = []
    metadata = metadata_of(path, notes)
    # An ExecuTorch program can be read without its runtime.
    if metadata is not None and (measuring or form.name != "executorch"):
        check_runs_on_cpus(path, metadata)
    tell.step(f"Reading {path.name}")
    reading = read_file(path, threads=threads, delegate=delegate, on=on)
    measured = None
    if measuring and on != MICRO:
        tell.step(f"Measuring {path.name}" + (f" on an emulated {on}" if on != "host" else ""))
        try:
            variant = COMPILED if compiled else "" if delegate else NO_DELEGATE
            measured = measure(path, on=on, threads=threads, variant=variant)
        except MissingBackendError as error:
            notes.append(f"Not measured: {error.args[0]} {error.hint}".strip())
        except ArtifactError as error:
            if reading.fixed_shapes:
                raise
            notes.append(f"Not measured: {error.args[0]}")
    notes += reading.notes
    parts = [path, *(path.with_suffix(suffix) for suffix in form.companions)]
    size = sum(part.stat().st_size for part in parts if part.exists())
    return FileProfile(
        path, form.name, size, on, threads, delegate, compiled, metadata, reading, measured, tuple(notes)
    )


def read_file(path: Path, *, threads: int = 1, delegate: bool = True, on: str = "host") -> Reading:
    """The graph and the plans in a file of any format. Raises ArtifactError for a damaged or refused one."""
    form = format_of(path).name
    try:
        if on == MICRO:
            return read_tflm(path)
        if form == "tflite":
            return read_tflite(path, threads=threads, delegate=delegate, on=on)
        if form == "executorch":
            return read_executorch(path)
        return (read_onnx if form == "onnx" else read_openvino)(path, threads=threads, on=on)
    except ArtifactError as error:
        if str(path) in str(error):
            raise
        raise ArtifactError(f"'{path}' cannot be read: {error.args[0]}.", hint=error.hint) from error
    except (ValueError, LookupError, OverflowError, struct.error) as error:
        # Foreign bytes: whatever does not hold together in them ends up here.
        raise ArtifactError(f"'{path}' is damaged: {error}.") from error


def metadata_of(path: Path, notes: list[str]) -> ArtifactMetadata | None:
    """Our sidecar, where the file is ours."""
    if not sidecar_path(path).exists():
        notes.append(
            f"No '{sidecar_path(path).name}' beside it: class names, preprocessing, recipe and the weights' source are "
            "not known. Its memory does not depend on them."
        )
        return None
    try:
        return ArtifactMetadata.load(path, verify=False)
    except ArtifactError as error:
        notes.append(f"Its sidecar is of no use: {error.args[0]}")
        return None
