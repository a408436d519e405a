"""What is compared for speed and how it is judged, as data: docs/speed.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from latency import Timing
from memory_cases import CAMVID, RANDOM, Setting

#: How far a file's mIoU may lie below that of our float file: a fast wrong file does not count.
MAX_DROP = 0.005
SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in (CAMVID, RANDOM)}
LABELS = ("default float", "default INT8", "our float", "our INT8")


@dataclass(frozen=True)
class Lane:
    """One runtime: the two default pipelines, our target, and what ours must reach there."""

    name: str
    title: str
    default_float: str
    default_int8: str
    target: str
    #: The default that ours is compared with, and how many times as fast as it, and as our own float, ours must be.
    against: str
    least_ratio: float
    least_over_float: float = 1.3
    #: Setup of the runtime for the defaults' files and for ours, as ``segformer_edge.memory.measure`` takes it.
    variant: str = ""
    our_variant: str = ""
    #: Precision recipe of our INT8 file.
    recipe: str = "mixed"


LANES: Mapping[str, Lane] = {
    lane.name: lane
    for lane in (
        Lane(
            "litert", "LiteRT", "litert_float", "litert_int8", "tflite", "default INT8", 5.0, our_variant="compiled"
        ),
        # The same runtime and defaults; our INT8 file with attention's products in int8, too.
        Lane(
            "litert-int8-attention", "LiteRT, int8_attention", "litert_float", "litert_int8", "tflite", "default INT8",
            5.0, our_variant="compiled", recipe="int8_attention",
        ),
        Lane(
            "executorch", "ExecuTorch XNNPACK", "executorch_float", "executorch_int8", "executorch", "default INT8",
            3.5, 1.4,
        ),
        Lane("onnxruntime", "onnxruntime", "onnx_float", "onnx_int8", "onnx", "default INT8", 2.5),
        # NNCF's file is wrong on CPUs where OpenVINO's int8 transformations fail (see its mIoU).
        Lane("openvino", "OpenVINO", "openvino_float", "openvino_int8", "openvino", "default float", 2.5),
        # The same files as a CPU without bfloat16 runs them.
        Lane(
            "openvino-float32", "OpenVINO, no bfloat16", "openvino_float", "openvino_int8", "openvino",
            "default float", 2.5, variant="float32", our_variant="float32",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One file of one lane, measured or not: ``error`` says why a field is None."""

    label: str
    file: str | None = None
    file_bytes: int | None = None
    #: Threads to time.
    timings: Mapping[int, Timing] | None = None
    miou: float | None = None
    #: Growth of the process by an inference, without weights.
    peak_bytes: int | None = None
    #: Wall time of building the file: of the whole pipeline for the defaults, of the export alone for ours.
    build_seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Result:
    """One lane in one setting."""

    setting: Setting
    lane: Lane
    entries: Mapping[str, Entry]

    def median(self, label: str, threads: int = 1) -> float | None:
        """Milliseconds, or None where it was not measured."""
        timings = self.entries[label].timings
        return None if timings is None or threads not in timings else timings[threads].median

    @property
    def threads(self) -> set[int]:
        """Numbers of threads that something was timed with."""
        return {threads for entry in self.entries.values() for threads in entry.timings or {}}

    def ratio(self, over: str, threads: int = 1) -> float | None:
        """How many times as fast as ``over`` our INT8 file is."""
        ours, other = self.median(LABELS[3], threads), self.median(over, threads)
        return None if not ours or not other else other / ours

    @property
    def verdicts(self) -> dict[str, bool | None]:
        """What the lane must show and whether it does; None where a figure is missing."""
        ratio, over_float = self.ratio(self.lane.against), self.ratio(LABELS[2])
        float_miou, int8_miou = (self.entries[label].miou for label in LABELS[2:])
        return {
            "ratio": None if ratio is None else ratio >= self.lane.least_ratio,
            "over_float": None if over_float is None else over_float >= self.lane.least_over_float,
            "right": None if float_miou is None or int8_miou is None else float_miou - int8_miou <= MAX_DROP,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        """The inverse of ``to_json``. Raises KeyError or TypeError for anything else."""
        entries = {}
        for fields in value["entries"]:
            timings = {
                int(threads): Timing(**{**timing, "quartiles": tuple(timing["quartiles"])})
                for threads, timing in (fields["timings"] or {}).items()
            }
            entries[fields["label"]] = Entry(**{**fields, "timings": timings or None})
        return cls(SETTINGS[value["setting"]], LANES[value["runtime"]], entries)

    def to_json(self) -> dict[str, Any]:
        """Everything measured, for bench.json."""
        return {
            "setting": self.setting.name,
            "size": list(self.setting.size),
            "runtime": self.lane.name,
            "entries": [asdict(entry) for entry in self.entries.values()],
            "ratio": self.ratio(self.lane.against),
            "ratio_to": self.lane.against,
            "over_float": self.ratio(LABELS[2]),
            "verdicts": self.verdicts,
        }
