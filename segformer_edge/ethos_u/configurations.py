"""The table of NPU configurations, which the exporter, the profiler, the documentation and the tests read.

System configurations and memory modes are names in the compiler's own ``Arm/vela.ini``; they stand for clocks,
latencies and bandwidths of a reference system, not of a board.
"""

from __future__ import annotations

from dataclasses import dataclass

from segformer_edge.errors import UsageError
from segformer_edge.suggestions import did_you_mean


@dataclass(frozen=True)
class MemoryMode:
    """Where activations and constants lie, on which system.

    ``name`` is the mode's name in reports: ``Sram_Only`` (everything in SRAM), ``Shared_Sram`` (activations in SRAM,
    constants in flash or DRAM) or ``Dedicated_Sram`` (SRAM is a cache for activations in DRAM). ``vela`` and
    ``system`` are what the compiler calls the mode and the system.
    """

    name: str
    vela: str
    system: str


@dataclass(frozen=True)
class NpuConfig:
    """One NPU. Raises ValueError where the default is none of its modes, or a mode is given twice."""

    name: str
    #: Multiply-accumulates of int8 a cycle.
    macs: int
    modes: tuple[MemoryMode, ...]
    #: Name of the mode that files are made for.
    default: str
    #: Largest factor of a bilinear resize with half-pixel centres; larger ones are rewritten. None: any.
    largest_resize: int | None = None
    #: Whether it concatenates int32, as label maps are.
    joins_int32: bool = True

    def __post_init__(self) -> None:
        names = [mode.name for mode in self.modes]
        if self.default not in names or len(set(names)) != len(names):
            raise ValueError(f"{self.name}: the modes are {', '.join(names)}, the default {self.default}.")

    def mode(self, name: str = "") -> MemoryMode:
        """The mode called ``name``, or the default. Raises UsageError with the nearest name."""
        wanted = name or self.default
        for mode in self.modes:
            if mode.name == wanted:
                return mode
        names = [mode.name for mode in self.modes]
        raise UsageError(
            f"{self.name} has no memory mode '{wanted}'.",
            hint=did_you_mean(wanted, names),
        )


def _modes(flash: str, dram: str, cache: str) -> tuple[MemoryMode, ...]:
    return (
        MemoryMode("Sram_Only", "Sram_Only", flash),
        MemoryMode("Shared_Sram", "Shared_Sram", flash),
        *((MemoryMode("Dedicated_Sram", f"Dedicated_Sram_{cache}", dram),) if dram else ()),
    )


_U55 = _modes("Ethos_U55_High_End_Embedded", "", "")
_U65 = _modes("Ethos_U65_Embedded", "Ethos_U65_High_End", "384KB")
_U85 = _modes("Ethos_U85_SYS_Flash_High", "Ethos_U85_SYS_DRAM_Mid", "512KB")

CONFIGURATIONS: dict[str, NpuConfig] = {
    config.name: config
    for config in (
        NpuConfig("ethos-u55-128", 128, _U55, "Shared_Sram", largest_resize=2, joins_int32=False),
        NpuConfig("ethos-u55-256", 256, _U55, "Shared_Sram", largest_resize=2, joins_int32=False),
        NpuConfig("ethos-u65-256", 256, _U65, "Shared_Sram", largest_resize=2, joins_int32=False),
        NpuConfig("ethos-u65-512", 512, _U65, "Shared_Sram", largest_resize=2, joins_int32=False),
        NpuConfig("ethos-u85-256", 256, _U85, "Sram_Only"),
        NpuConfig("ethos-u85-1024", 1024, _U85, "Sram_Only"),
    )
}


def configuration(name: str) -> NpuConfig:
    """The NPU called ``name``. Raises UsageError with the nearest name."""
    if name not in CONFIGURATIONS:
        raise UsageError(
            f"Unknown NPU '{name}'.",
            hint=did_you_mean(name, CONFIGURATIONS),
        )
    return CONFIGURATIONS[name]
