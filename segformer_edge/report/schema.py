"""``report.json``: what one run of the quantize command wrote and measured. A figure not measured is null."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from segformer_edge.errors import UsageError
from segformer_edge.jsonfile import Fields, read_json, write_json
from segformer_edge.report.budget import Budget, read_budget
from segformer_edge.report.gates import Gates, read_gates
from segformer_edge.report.npu import NpuReport, read_npu
from segformer_edge.report.profile import TargetProfile, read_profile
from segformer_edge.report.reproduction import Reproduction, read_reproduction

SCHEMA_VERSION = 1
STATUSES = ("ok", "failed", "over_budget", "below_accuracy")
WIDTHS = ("int8", "int16", "float")
OUTPUTS = ("logits", "labels")

T = TypeVar("T")


class ReportError(UsageError):
    """A report has a field that is missing, of the wrong type or out of its range."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one inference, the network alone. ``device`` says where: "host x86_64", "emulated ..."."""

    median: float
    min: float
    threads: int
    runs: int
    device: str


@dataclass(frozen=True)
class Memory:
    """Bytes of activations: the runtime's own plan, the measured peak, and the weights apart from both.

    ``peak_bytes`` is the peak heap of loading and of an inference over the state before, without weights;
    ``weights_bytes`` are those copied to the heap, as they are or packed for kernels. ``kind`` says how each was
    found, like "planned" or "measured (allocator hook)".
    """

    planned_bytes: int | None
    peak_bytes: int | None
    weights_bytes: int | None
    kind: str
    device: str | None


@dataclass(frozen=True)
class Ops:
    """Operators of the exported graph. ``fallback`` names those that no delegate or integer kernel takes."""

    total: int | None
    int8: int | None
    float: int | None
    delegated: int | None
    fallback: tuple[str, ...] = ()


@dataclass(frozen=True)
class TargetReport:
    """One target. ``miou`` and both agreements are fractions; ``miou_drop`` is float32 minus this."""

    target: str
    status: str
    error: str | None = None
    files: tuple[str, ...] = ()
    bytes: int | None = None
    miou: float | None = None
    miou_drop: float | None = None
    agreement_fp32: float | None = None
    agreement_int8: float | None = None
    latency_ms: Latency | None = None
    memory: Memory | None = None
    ops: Ops | None = None
    #: Class name -> IoU; null for a class that is in neither the labels nor the predictions.
    per_class_iou: Mapping[str, float | None] | None = None
    #: With --memory-budget.
    budget: Budget | None = None
    #: Wall time of the export alone.
    export_seconds: float | None = None
    #: Of an NPU's target: what its compiler says. Accuracy is that of ``npu.host_file``; latency is not known.
    npu: NpuReport | None = None
    #: Share of pixels as the quantized reference on the held-back images: what Gates.min_agreement was held against.
    agreement_checked: float | None = None
    #: Per-operator time and the memory timeline.
    profile: TargetProfile | None = None


@dataclass(frozen=True)
class Reference:
    """The float32 model and the quantized reference on the evaluation images."""

    fp32_miou: float | None
    int8_reference_miou: float | None
    images: int | None
    dataset: str | None
    #: As in TargetReport.
    fp32_per_class_iou: Mapping[str, float | None] | None = None
    int8_reference_per_class_iou: Mapping[str, float | None] | None = None
    #: The float32 model's weights, which may be others than the exported ones.
    weights: str | None = None


@dataclass(frozen=True)
class Precision:
    """How much of the network runs at which width: width -> class of sites -> how many.

    ``float`` in ``activations`` are sites that nothing is done at. Where only views lie between such a site and an
    integer one, the tensor is integer nevertheless.
    """

    activations: Mapping[str, Mapping[str, int]]
    weights: Mapping[str, Mapping[str, int]]

    def count(self, table: str, width: str) -> int:
        """Sites of ``width`` in ``table``, which is "activations" or "weights"."""
        return sum(getattr(self, table).get(width, {}).values())


@dataclass(frozen=True)
class Report:
    """The whole run; ``seconds`` is its wall time."""

    model: str
    weights: str
    size: tuple[int, int]
    output: str
    seconds: float | None
    reference: Reference
    targets: tuple[TargetReport, ...]
    precision: Precision | None = None
    #: What the files were held against, and how to make them again; reports of earlier versions have neither.
    gates: Gates | None = None
    reproduce: Reproduction | None = None
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict in the documented order. Raises ReportError for a value the schema does not allow."""
        value = {"schema_version": self.schema_version, **plain(asdict(self))}
        Report.from_json(value)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "report") -> Report:
        """Read back and validate. Raises ReportError naming the field."""
        f = Fields(value, where, ReportError)
        if f.integer("schema_version") != SCHEMA_VERSION:
            f.fail("schema_version", f"is {value['schema_version']}; this version reads {SCHEMA_VERSION}")
        height, width = f.integers("size", length=2, minimum=1)
        reference = f.section("reference")
        targets = tuple(_target(entry) for entry in f.sections("targets"))
        names = [target.target for target in targets]
        if len(set(names)) != len(names):
            f.fail("targets", f"names a target twice: {', '.join(names)}")
        return cls(
            model=f.text("model"),
            weights=f.text("weights"),
            size=(height, width),
            output=f.text("output", OUTPUTS),
            seconds=f.optional("seconds", f.number),
            reference=Reference(
                fp32_miou=_fraction(reference, "fp32_miou"),
                int8_reference_miou=_fraction(reference, "int8_reference_miou"),
                images=_count(reference, "images"),
                dataset=reference.optional("dataset", reference.text),
                fp32_per_class_iou=_per_class(reference, "fp32_per_class_iou"),
                int8_reference_per_class_iou=_per_class(reference, "int8_reference_per_class_iou"),
                weights=reference.optional("weights", reference.text) if reference.has("weights") else None,
            ),
            targets=targets,
            precision=_precision(f),
            gates=_later(f, "gates", read_gates),
            reproduce=_later(f, "reproduce", read_reproduction),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``path`` atomically. Raises ReportError, DiskFullError."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Read a ``report.json``. Raises ReportError."""
        return cls.from_json(read_json(path, ReportError), where=f"'{Path(path)}'")


def _target(f: Fields) -> TargetReport:
    status = f.text("status", STATUSES)
    error = f.optional("error", f.text)
    if status == "failed" and not error:
        f.fail("error", "is empty, but the status is failed")
    drop = f.optional("miou_drop", f.number)
    if drop is not None and abs(drop) > 1:
        f.fail("miou_drop", f"is {drop}; mIoU values are fractions")
    return TargetReport(
        target=f.text("target"),
        status=status,
        error=error,
        files=f.texts("files"),
        bytes=_count(f, "bytes"),
        miou=_fraction(f, "miou"),
        miou_drop=drop,
        agreement_fp32=_fraction(f, "agreement_fp32"),
        agreement_int8=_fraction(f, "agreement_int8"),
        latency_ms=_latency(f.section("latency_ms")) if f.raw("latency_ms") is not None else None,
        memory=_memory(f.section("memory")) if f.raw("memory") is not None else None,
        ops=_ops(f.section("ops")) if f.raw("ops") is not None else None,
        per_class_iou=_per_class(f, "per_class_iou"),
        budget=_later(f, "budget", read_budget),
        export_seconds=f.optional("export_seconds", f.number) if f.has("export_seconds") else None,
        npu=_later(f, "npu", read_npu),
        agreement_checked=_fraction(f, "agreement_checked") if f.has("agreement_checked") else None,
        profile=_later(f, "profile", read_profile),
    )


def _later(f: Fields, key: str, read: Callable[[Fields], T]) -> T | None:
    """A section that reports of earlier versions lack."""
    return read(f.section(key)) if f.has(key) and f.raw(key) is not None else None


def _per_class(f: Fields, key: str) -> dict[str, float | None] | None:
    """Class name -> IoU. Reports of earlier versions have no such field."""
    if not f.has(key) or f.raw(key) is None:
        return None
    classes = f.section(key)
    return {name: _fraction(classes, name) for name in classes}


def _precision(f: Fields) -> Precision | None:
    if not f.has("precision") or f.raw("precision") is None:
        return None
    tables = {}
    for name in ("activations", "weights"):
        table = f.section("precision").section(name)
        for width in table:
            if width not in WIDTHS:
                table.fail(width, f"is no width; those are {', '.join(WIDTHS)}")
        sections = {width: table.section(width) for width in table}
        tables[name] = {w: {role: roles.integer(role, minimum=1) for role in roles} for w, roles in sections.items()}
    return Precision(**tables)


def _latency(f: Fields) -> Latency:
    median, fastest = f.number("median"), f.number("min")
    if not 0 <= fastest <= median:
        f.fail("min", f"is {fastest}; it lies between 0 and the median, {median}")
    threads, runs = f.integer("threads", minimum=1), f.integer("runs", minimum=1)
    return Latency(median, fastest, threads, runs, f.text("device"))


def _memory(f: Fields) -> Memory:
    planned, peak, weights = (_count(f, key) for key in ("planned_bytes", "peak_bytes", "weights_bytes"))
    return Memory(planned, peak, weights, f.text("kind"), f.optional("device", f.text))


def _ops(f: Fields) -> Ops:
    total, int8, in_float, delegated = (_count(f, key) for key in ("total", "int8", "float", "delegated"))
    return Ops(total, int8, in_float, delegated, f.texts("fallback"))


def _fraction(f: Fields, key: str) -> float | None:
    value = f.optional(key, f.number)
    if value is not None and not 0 <= value <= 1:
        f.fail(key, f"is {value}, not a fraction from 0 to 1")
    return value


def _count(f: Fields, key: str) -> int | None:
    return None if f.raw(key) is None else f.integer(key, minimum=0)


def plain(value: Any) -> Any:
    """Tuples as lists, numpy scalars as numbers, and a figure that is not a number as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not dataclasses.is_dataclass(value):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
