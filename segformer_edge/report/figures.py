"""Every figure of a target with how it was found: measured, emulated, planned, estimated or counted."""

from __future__ import annotations

from dataclasses import dataclass

from segformer_edge.report.schema import Latency, Memory, Reference, TargetReport
from segformer_edge.report.table import mib, percent

MEASURED, EMULATED, PLANNED, ESTIMATED, COUNTED = "measured", "emulated", "planned", "estimated", "counted"

#: What the words mean, for the page's legend.
ORIGINS = {
    MEASURED: "the file was run by its own runtime on the machine named",
    EMULATED: "the file was run on an emulated processor: results and memory are its own, times are not",
    PLANNED: "a runtime or a compiler decided on it before running",
    ESTIMATED: "worked out from the graph or by a compiler's model; nothing was run",
    COUNTED: "read from the file",
}


@dataclass(frozen=True)
class Figure:
    """One figure as text. ``origin`` is a key of ORIGINS, ``about`` says where and how."""

    name: str
    value: str
    origin: str
    about: str = ""

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise ValueError(f"origin {self.origin!r} is not one of {', '.join(ORIGINS)}")


def figures_of(target: TargetReport, reference: Reference) -> list[Figure]:
    """All figures of ``target`` that are known."""
    found = []
    if target.bytes is not None:
        found.append(Figure("size", mib(target.bytes), COUNTED, ", ".join(target.files)))
    found += _accuracy(target, reference)
    if target.latency_ms is not None:
        found.append(_latency(target.latency_ms))
    if target.npu is not None:
        speed = next(mode.inferences_per_second for mode in target.npu.modes if mode.mode == target.npu.mode)
        about = f"{target.npu.speed}, {target.npu.compiler}, {target.npu.mode}"
        found.append(Figure("speed", f"{speed:.1f} inferences a second", ESTIMATED, about))
    if target.memory is not None:
        found += _memory(target.memory)
    timeline = target.profile.timeline if target.profile else None
    if timeline is not None:
        where = f" at {timeline.peak_operator}" if timeline.peak_operator else ""
        about = f"liveness of the graph{where}; order of operators from {timeline.order_from}"
        found.append(Figure("largest sum of live tensors", mib(timeline.peak_bytes), ESTIMATED, about))
    if target.ops is not None and target.ops.total is not None:
        parts = [(target.ops.int8, "in int8"), (target.ops.float, "in float"), (target.ops.delegated, "delegated")]
        about = ", ".join(f"{count} {what}" for count, what in parts if count is not None)
        if target.ops.fallback:
            about += f"; not accelerated: {', '.join(target.ops.fallback)}"
        found.append(Figure("operators", str(target.ops.total), COUNTED, about))
    if target.export_seconds is not None:
        found.append(Figure("export", f"{target.export_seconds:.0f} s", MEASURED, "wall time"))
    return found


def _accuracy(target: TargetReport, reference: Reference) -> list[Figure]:
    """On the host, also for NPUs: there another file computes the same."""
    where = "calibration images held back"
    if target.miou is not None:
        where = f"{reference.images} images of {reference.dataset}"
    if target.npu is not None:
        where += f", {target.npu.host_file} in place of the NPU's file"
    found = []
    if target.miou is not None:
        found.append(Figure("mIoU", f"{target.miou:.4f}", MEASURED, where))
    for name, share in (("float32", target.agreement_fp32), ("INT8 reference", target.agreement_int8)):
        if share is not None:
            found.append(Figure(f"pixels as {name}", percent(share), MEASURED, where))
    return found


def _latency(latency: Latency) -> Figure:
    threads = f"{latency.threads} thread{'s' * (latency.threads > 1)}"
    about = f"median of {latency.runs} runs, fastest {latency.min:.2f} ms, {threads}, {latency.device}"
    return Figure("latency", f"{latency.median:.2f} ms", _by_running(latency.device), about)


def _memory(memory: Memory) -> list[Figure]:
    found = []
    where = f"{memory.kind}, {memory.device}" if memory.device else memory.kind
    if memory.planned_bytes is not None:
        about = where if memory.peak_bytes is None else "activations, by the runtime or the exporter"
        found.append(Figure("planned memory", mib(memory.planned_bytes), PLANNED, about))
    for name, count in (("peak memory", memory.peak_bytes), ("weights in memory", memory.weights_bytes)):
        if count is not None:
            found.append(Figure(name, mib(count), _by_running(memory.device), where))
    return found


def _by_running(device: str | None) -> str:
    return EMULATED if device and device.startswith("emulated") else MEASURED
