"""IoU of every class for float32, the quantized reference and each file, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segformer_edge.report.schema import Report

#: A class that loses more than this has lost something that a user may notice.
NOTICEABLE = 0.01


@dataclass(frozen=True)
class ClassIou:
    """One class in one column: its IoU, and what that is above (+) or below (-) float32; None where not measured."""

    iou: float | None
    change: float | None

    @property
    def noticeable(self) -> bool:
        """Whether the loss is to be pointed out."""
        return self.change is not None and self.change < -NOTICEABLE


@dataclass(frozen=True)
class WorstClass:
    """The class that one file changes most for the worse."""

    name: str
    change: float
    target: str


def class_columns(report: Report) -> list[tuple[str, Mapping[str, float | None]]]:
    """(column, class name -> IoU) of all that was scored: float32, the reference, then the targets."""
    reference = report.reference
    columns = [
        ("float32", reference.fp32_per_class_iou),
        ("INT8 reference", reference.int8_reference_per_class_iou),
        *((target.target, target.per_class_iou) for target in report.targets),
    ]
    return [(name, ious) for name, ious in columns if ious is not None]


def class_rows(report: Report) -> list[tuple[str, list[ClassIou]]]:
    """(class name, one entry for each of ``class_columns``), in the data set's order; empty without float32's IoU."""
    exact = report.reference.fp32_per_class_iou
    if exact is None:
        return []
    rows = []
    for name, fp32 in exact.items():
        ious = [column.get(name) for _, column in class_columns(report)]
        changes = [None if iou is None or fp32 is None else iou - fp32 for iou in ious]
        rows.append((name, [ClassIou(iou, change) for iou, change in zip(ious, changes, strict=True)]))
    return rows


def worst_class(report: Report) -> WorstClass | None:
    """The largest loss of any class in any target's file, or the smallest gain; None where no file was scored."""
    targets = {target.target for target in report.targets}
    columns = [name for name, _ in class_columns(report)]
    found = [
        WorstClass(name, entry.change, column)
        for name, entries in class_rows(report)
        for column, entry in zip(columns, entries, strict=True)
        if column in targets and entry.change is not None
    ]
    return min(found, key=lambda worst: worst.change, default=None)
