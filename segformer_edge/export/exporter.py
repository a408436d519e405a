"""What every exporter does: a calibrated network in, one verified-to-load file and its facts out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from segformer_edge.report.npu import NpuReport
from segformer_edge.report.schema import Memory, Ops
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling
from segformer_edge.runtime.metadata import InputSpec, OutputSpec


@dataclass(frozen=True)
class Plan:
    """How a memory budget was met, or not, by the liveness model: bytes of the budget's ``meaning``."""

    tiling: Tiling
    meaning: str
    forecast: int
    fits: bool
    blocked_by: str
    #: Where nothing fits: the largest input of the same proportions that would.
    largest_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Exported:
    """Facts of one exported artifact; ``files[0]`` is the one a runtime opens."""

    files: tuple[str, ...]
    input: InputSpec
    output: OutputSpec
    ops: Ops
    tools: dict[str, str]
    memory: Memory | None = None
    plan: Plan | None = None
    #: Wall time of the export, planning included.
    seconds: float | None = None
    #: Of a file for an NPU, what its compiler said. This machine runs ``npu.host_file`` in its place.
    npu: NpuReport | None = None

    @property
    def runs_here(self) -> str:
        """Name of the file whose answers are checked."""
        return self.files[0] if self.npu is None else self.npu.host_file

    @property
    def shipped(self) -> tuple[str, ...]:
        """The files that a device needs."""
        return self.files if self.npu is None else self.files[:1]

    @property
    def described(self) -> tuple[str, ...]:
        """The files that have a sidecar: all of an NPU's stand for themselves, else the first with its companions."""
        return self.files[:1] if self.npu is None else self.files


class Exporter(Protocol):
    """One target. Implementations live one per file and are found through the table of targets."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        """Write ``stem`` plus the format's suffix for a ``(1, 3, *size)`` image; ``network`` is calibrated.

        Raises SegformerEdgeError, or whatever the backend raises when it cannot take the graph.
        """


@runtime_checkable
class PlanningExporter(Protocol):
    """An exporter that finds the tiling for a memory budget itself."""

    def plan(self, network: EdgeSegFormer, size: tuple[int, int], budget: int) -> Plan:
        """The coarsest tiling of ``network``, which is not tiled, that needs at most ``budget`` bytes, or the best."""


def output_shape(network: EdgeSegFormer, size: tuple[int, int], layout: str) -> tuple[int, ...]:
    """Shape of the network's output, at a quarter of the input size."""
    height, width = size[0] // 4, size[1] // 4
    if network.output_form == "labels":
        return (1, height, width)
    classes = network.config.num_classes
    return (1, classes, height, width) if layout == "nchw" else (1, height, width, classes)


def float_specs(
    network: EdgeSegFormer, size: tuple[int, int], names: tuple[str | None, str | None] = (None, None)
) -> tuple[InputSpec, OutputSpec]:
    """Specs of a file that takes the float32 image ``(1, 3, H, W)`` and gives float32 logits or uint8 labels."""
    labels = network.output_form == "labels"
    return (
        InputSpec(names[0], (1, 3, *size), "nchw", "float32"),
        OutputSpec(
            names[1],
            network.output_form,
            output_shape(network, size, "nchw"),
            "nchw",
            "uint8" if labels else "float32",
        ),
    )
