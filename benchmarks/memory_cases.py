"""What is compared and how it is judged, as data: the rows of docs/memory.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from segformer_edge.memory.measurement import Measurement

MIB = 1024 * 1024
#: Where one row's default sets the limit: this share of it.
SHARE_OF_DEFAULT = 0.1
#: How much longer a tiled file may take, and how far two CPUs' peaks may lie apart.
MAX_SLOWDOWN = 0.15
MAX_CPU_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Setting:
    """One input size and number of classes, for both sides; the weights are named on the command line."""

    name: str
    title: str
    size: tuple[int, int]

    @property
    def size_text(self) -> str:
        """As ``--size`` takes it."""
        return f"{self.size[0]}x{self.size[1]}"


@dataclass(frozen=True)
class Figure:
    """One number of a Measurement, and what it is called."""

    title: str
    read: Callable[[Measurement], int | None]


def _activations(measured: Measurement) -> int | None:
    """Planned buffers and the delegate's workspace at the peak of the inferences: both hold activations alone."""
    return None if measured.run_split is None else measured.run_split.activations


FIGURES: Mapping[str, Figure] = {
    "arena": Figure("tensor arena", lambda measured: measured.arena_bytes),
    "growth": Figure("growth of an inference, weights taken out", lambda measured: measured.inference_growth),
    "plan_workspace": Figure("plan and workspace", _activations),
}


@dataclass(frozen=True)
class Kind:
    """One way to run one target's files, and the number that counts there."""

    name: str
    title: str
    #: The default pipeline, our target and its recipe.
    default: str
    target: str
    recipe: str
    figure: str
    #: Setup of the runtime, as ``segformer_edge.memory.measure`` takes it: for the default's file and for ours.
    variant: str = ""
    our_variant: str = ""
    #: Whether the price of tiling in time is judged here: kernels without a delegate are the slow reference.
    timed: bool = True

    def variant_of(self, label: str) -> str:
        """The setup for the file of the side ``label``."""
        return self.variant if label == "default" else self.our_variant


@dataclass(frozen=True)
class Case:
    """One row: ours must stay within ``limit`` bytes, or within a tenth of the default where that is None."""

    setting: Setting
    kind: Kind
    limit: int | None

    @property
    def name(self) -> str:
        """Also the folder of our files."""
        return f"{self.setting.name}-{self.kind.name}"

    @property
    def title(self) -> str:
        """As in the table."""
        return f"{self.setting.title}, {self.kind.title}"

    def limit_from(self, default_bytes: int | None) -> int | None:
        """The limit in bytes; None where it hangs on a default that was not measured."""
        if self.limit is not None or default_bytes is None:
            return self.limit
        return int(default_bytes * SHARE_OF_DEFAULT)


RANDOM = Setting("random", "512x512, 150 classes", (512, 512))
CAMVID = Setting("camvid", "384x512, CamVid", (384, 512))

PLAIN = Kind(
    "tflite-plain", "`.tflite` without delegate, arena", "litert_int8", "tflite", "npu", "arena", "no-delegate",
    "no-delegate", timed=False,
)  # fmt: skip
XNNPACK = Kind(
    "tflite-xnnpack", "`.tflite` with XNNPACK, growth", "litert_int8", "tflite", "lean", "growth",
    our_variant="compiled",
)  # fmt: skip
EXECUTORCH = Kind(
    "pte", "`.pte`, plan + workspace", "executorch_int8", "executorch", "lean", "plan_workspace"
)  # fmt: skip
KINDS = (PLAIN, XNNPACK, EXECUTORCH)

CASES = (
    Case(RANDOM, PLAIN, 3 * MIB // 2),
    Case(RANDOM, XNNPACK, 6_000_000),
    Case(RANDOM, EXECUTORCH, 6_000_000),
    *(Case(CAMVID, kind, None) for kind in KINDS),
)


@dataclass(frozen=True)
class Side:
    """One file of one row, measured or not: ``error`` says why a field is None."""

    label: str
    file: str | None = None
    file_bytes: int | None = None
    #: The row's figure, in bytes.
    figure_bytes: int | None = None
    #: Median milliseconds of an inference, one thread, in turns with the row's other files.
    latency_ms: float | None = None
    #: The row's figure on an emulated ARM CPU.
    arm_bytes: int | None = None
    arm_cpu: str | None = None
    measurement: Mapping[str, Any] | None = None
    #: Why a figure here, or the one on the emulated CPU, is None.
    error: str | None = None
    arm_error: str | None = None

    @property
    def cpu_difference(self) -> float | None:
        """How far the peak on ARM lies from the one here, as a share of the one here."""
        if not self.arm_bytes or not self.figure_bytes:
            return None
        return abs(self.arm_bytes / self.figure_bytes - 1.0)


@dataclass(frozen=True)
class Row:
    """A case and its three files: the default's, ours within the budget, and ours without a budget."""

    case: Case
    limit_bytes: int | None
    default: Side
    ours: Side
    untiled: Side

    @property
    def ratio(self) -> float | None:
        """How many times less ours takes."""
        if not self.default.figure_bytes or not self.ours.figure_bytes:
            return None
        return self.default.figure_bytes / self.ours.figure_bytes

    @property
    def slowdown(self) -> float | None:
        """Price of tiling in time, as a share: 0.1 is a tenth longer."""
        if not self.untiled.latency_ms or not self.ours.latency_ms:
            return None
        return self.ours.latency_ms / self.untiled.latency_ms - 1.0

    @property
    def verdicts(self) -> dict[str, bool | None]:
        """What the row must show and whether it does; None where a figure is missing."""
        within = None
        if self.ours.figure_bytes is not None and self.limit_bytes is not None:
            within = self.ours.figure_bytes <= self.limit_bytes
        slowdown = self.slowdown
        differences = [d for side in (self.default, self.ours) if (d := side.cpu_difference) is not None]
        return {
            "within_limit": within,
            "slowdown": None if slowdown is None or not self.case.kind.timed else slowdown <= MAX_SLOWDOWN,
            "arm": max(differences) <= MAX_CPU_DIFFERENCE if differences else None,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything measured, for docs/memory.json."""
        return {
            "row": self.case.name,
            "title": self.case.title.replace("`", ""),
            "size": list(self.case.setting.size),
            "figure": FIGURES[self.case.kind.figure].title,
            "limit_bytes": self.limit_bytes,
            **{
                name: {**asdict(side), "cpu_difference": side.cpu_difference}
                for name, side in (("default", self.default), ("ours", self.ours), ("untiled", self.untiled))
            },
            "ratio": self.ratio,
            "slowdown": self.slowdown,
            "verdicts": self.verdicts,
        }
