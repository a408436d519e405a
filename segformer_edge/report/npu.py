"""What an NPU's compiler says of one target. Nothing here was measured on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from segformer_edge.jsonfile import Fields
from segformer_edge.report.budget import kib

#: How the figures were found: memory, and cycles and speed.
PLANNED, ESTIMATED = "planned by the compiler", "compiler's estimate"


@dataclass(frozen=True)
class NpuMode:
    """One memory mode. Bytes are ``PLANNED``, cycles and inferences per second ``ESTIMATED``.

    ``sram_bytes`` are activations, in Dedicated_Sram the cache for them; ``flash_bytes`` constants, which Sram_Only
    keeps in SRAM as well; ``dram_bytes`` whatever the mode keeps in DRAM, constants included.
    """

    mode: str
    system: str
    sram_bytes: int
    dram_bytes: int
    flash_bytes: int
    cycles: int
    inferences_per_second: float

    def figures(self) -> NpuMode:
        """These alone, of one that has more."""
        return NpuMode(**{field.name: getattr(self, field.name) for field in fields(NpuMode)})


@dataclass(frozen=True)
class NpuRefusal:
    """A memory mode for which the compiler makes nothing of the graph."""

    mode: str
    reason: str


@dataclass(frozen=True)
class NpuLeft:
    """An operator that is left to the CPU. Its cost there is not known."""

    operator: str
    name: str
    reason: str


@dataclass(frozen=True)
class NpuReport:
    """One NPU: ``operators`` of the graph, how many it runs, which are ``left``, and each memory mode.

    ``mode`` is the one that the files are made for; ``refused`` are those that the compiler could not make.
    ``host_file`` computes the same graph on this machine.
    """

    config: str
    compiler: str
    mode: str
    operators: int
    on_npu: int
    left: tuple[NpuLeft, ...]
    modes: tuple[NpuMode, ...]
    host_file: str
    memory: str = PLANNED
    speed: str = ESTIMATED
    refused: tuple[NpuRefusal, ...] = ()

    def verdict(self) -> str:
        """One sentence."""
        chosen = next(mode for mode in self.modes if mode.mode == self.mode)
        words = f"{self.on_npu} of {self.operators} operators on the NPU"
        if self.left:
            kinds = sorted({f"{left.operator} ({left.reason})" for left in self.left})
            words += f", {len(self.left)} left to the CPU: {', '.join(kinds)}"
        words += (
            f"; {chosen.mode}: SRAM {kib(chosen.sram_bytes)} ({self.memory}), "
            f"{chosen.inferences_per_second:.1f} inferences a second ({self.speed})."
        )
        return " ".join([words, *(f"Not made for {each.mode}: {each.reason}" for each in self.refused)])


def read_npu(f: Fields) -> NpuReport:
    """From a report. Raises the reader's own error naming the field."""
    modes = tuple(
        NpuMode(
            mode=m.text("mode"),
            system=m.text("system"),
            sram_bytes=m.integer("sram_bytes", minimum=0),
            dram_bytes=m.integer("dram_bytes", minimum=0),
            flash_bytes=m.integer("flash_bytes", minimum=0),
            cycles=m.integer("cycles", minimum=0),
            inferences_per_second=m.number("inferences_per_second"),
        )
        for m in f.sections("modes")
    )
    return NpuReport(
        config=f.text("config"),
        compiler=f.text("compiler"),
        mode=f.text("mode", tuple(mode.mode for mode in modes)),
        operators=f.integer("operators", minimum=0),
        on_npu=f.integer("on_npu", minimum=0),
        left=tuple(NpuLeft(e.text("operator"), e.text("name"), e.text("reason")) for e in f.sections("left")),
        modes=modes,
        host_file=f.text("host_file"),
        memory=f.text("memory"),
        speed=f.text("speed"),
        refused=tuple(NpuRefusal(e.text("mode"), e.text("reason")) for e in f.sections("refused"))
        if f.has("refused")
        else (),
    )


def npu_from_json(value: Mapping[str, Any]) -> NpuReport:
    """The inverse of ``asdict`` after a trip through JSON."""
    return NpuReport(
        **{
            **value,
            "left": tuple(NpuLeft(**entry) for entry in value["left"]),
            "modes": tuple(NpuMode(**entry) for entry in value["modes"]),
            "refused": tuple(NpuRefusal(**entry) for entry in value["refused"]),
        }
    )
