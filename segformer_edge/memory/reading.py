"""What a reader finds out about a file: its graph, the runtime's own plans, and what nobody can know from the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from segformer_edge.memory.graph import MemoryGraph, Tensor
from segformer_edge.memory.liveness import Block, Liveness, liveness
from segformer_edge.memory.xnnpack import workspace


@dataclass(frozen=True)
class Plan:
    """Memory that a runtime or an exporter has decided on.

    ``what`` names it ("TFLite arena"), ``source`` says where the figure comes from. ``bytes`` is null where the runtime
    does not say, and ``weights`` the part of it that holds constants. ``in_use``: whether an inference as profiled
    holds it; a plan of another configuration is shown for comparison alone.
    """

    what: str
    bytes: int | None
    source: str
    in_use: bool = True
    weights: int = 0
    parts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """One file, read. ``notes`` are sentences for the user: what is not known, and why."""

    graph: MemoryGraph
    plans: tuple[Plan, ...]
    #: What put the operators in their order: "file", or the runtime that was asked.
    order_from: str
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()
    #: Whether the delegate's planner uses what is free before the first block: seen in LiteRT 2.3, not in
    #: ExecuTorch 1.4, which brings an older XNNPACK.
    fills_front: bool = True
    #: Whether every tensor of the file has one shape.
    fixed_shapes: bool = True

    @cached_property
    def live(self) -> Liveness:
        """Every tensor but constants, wherever it lies."""
        return liveness(self.graph)

    def area_peak(self, area: str) -> int:
        """Lower bound of one area alone."""
        return liveness(self.graph, in_area(area), scratch=False).peak_bytes

    def workspace_estimate(self) -> int | None:
        """What XNNPACK's planner makes of tensors and scratch inside delegates; None where there are none.

        Delegates share one workspace, as large as the largest needs.
        """
        if not any(op.delegate is not None for op in self.graph.operators):
            return None
        blocks = list(liveness(self.graph, in_area("workspace"), scratch=False).blocks)
        steps = enumerate(self.graph.operators)
        blocks += [Block(op.scratch, i, i) for i, op in steps if op.scratch and op.delegate is not None]
        return workspace(blocks, self.fills_front).bytes


def in_area(area: str) -> Callable[[Tensor], bool]:
    """Selects the activations of one area."""
    return lambda tensor: tensor.area == area and tensor.kind != "constant"
