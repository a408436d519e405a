"""A profile as tables for the terminal and the page: rows of text, and how they are printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from rich.box import ASCII2, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segformer_edge.memory.profiling import FileProfile
from segformer_edge.memory.timeline import count_operators, short_name
from segformer_edge.report.table import NOT_MEASURED, ascii_only, console_for


@dataclass(frozen=True)
class Rows:
    """Column names and cells; columns named in ``numbers`` are aligned to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...] = ("size", "bytes", "count")


def amount(count: int | None) -> str:
    """Bytes as people read them: "812 B", "80.5 KiB", "3.71 MiB"."""
    if count is None:
        return NOT_MEASURED
    if abs(count) < 1024:
        return f"{count} B"
    return f"{count / 2**10:.1f} KiB" if abs(count) < 2**20 else f"{count / 2**20:.2f} MiB"


def title(profile: FileProfile) -> str:
    """File, runtime and device in a line."""
    runtime = profile.measured.runtime if profile.measured is not None else profile.format
    versions = {**profile.reading.versions, **(profile.measured.versions if profile.measured is not None else {})}
    tools = ", ".join(f"{name} {version}" for name, version in versions.items())
    device = profile.measured.device if profile.measured is not None else profile.on
    parts = [runtime, tools, device, f"{profile.threads} thread{'s' * (profile.threads > 1)}"]
    return f"{profile.path.name} ({', '.join(part for part in parts if part)})"


def graph_rows(profile: FileProfile) -> Rows:
    """Operators by type."""
    graph = profile.reading.graph
    rows = []
    for kind, count in count_operators(graph).types.items():
        own = [op for op in graph.operators if op.type == kind]
        dtypes = sorted({op.dtype for op in own if op.dtype})
        delegated = sum(op.delegate is not None for op in own)
        rows.append((kind, str(count), ", ".join(dtypes), str(delegated) if delegated else ""))
    return Rows(("operator", "count", "type of result", "delegated"), tuple(rows), ("count", "delegated"))


def peak_rows(profile: FileProfile, top: int = 8) -> Rows:
    """The ``top`` largest blocks at the peak, and the rest as one line."""
    graph, live = profile.reading.graph, profile.reading.live
    where = live.peak_operator
    blocks = live.live_at(where) if where is not None else ()
    writer = {t: op.name for op in graph.operators for t in op.outputs}
    rows = []
    for block in blocks[:top]:
        if block.tensor < 0:
            rows.append((amount(block.bytes), "scratch of the operator itself", "", "", "", ""))
            continue
        tensor = graph.tensors[block.tensor]
        by = short_name(writer[block.tensor]) if block.tensor in writer else f"the network's {tensor.kind}"
        shape = "x".join(map(str, tensor.shape))
        rows.append((amount(block.bytes), by, shape, tensor.dtype, tensor.area, f"{block.first}-{block.last}"))
    rest = blocks[top:]
    if rest:
        rows.append((amount(sum(block.bytes for block in rest)), f"{len(rest)} more", "", "", "", ""))
    return Rows(("bytes", "written by", "shape", "type", "lies in", "alive at"), tuple(rows))


def plan_rows(profile: FileProfile) -> Rows:
    """Plans, and their parts indented."""
    rows = []
    for plan in profile.reading.plans:
        rows.append((amount(plan.bytes), plan.what, plan.source + ("" if plan.in_use else " (not in use here)")))
        rows += [(amount(size), f"  {part}", "") for part, size in plan.parts.items()]
    live = profile.reading.live
    rows.append((amount(live.peak_bytes), "lower bound: largest sum of live tensors and scratch", "liveness"))
    rows += [(amount(size), f"{what}, outside the plan", "estimate") for what, size in profile.outside_plan.items()]
    return Rows(("bytes", "planned", "source"), tuple(rows))


def gap_rows(profile: FileProfile) -> Rows:
    """The measured peak by what it is for, and the gap to the plan."""
    measured, gap, rows = profile.measured, profile.gap, []
    if measured is None:
        return Rows(("bytes", "measured", "how"), ())
    if measured.mapped_bytes is not None:
        how = f"{amount(measured.resident_bytes)} of it resident"
        rows.append((amount(measured.mapped_bytes), "file mapped into memory", how))
    split = measured.run_split
    if split is not None:
        rows += [
            (amount(split.weights), "weights copied", ""),
            (amount(split.packed_weights), "weights packed for kernels", ""),
            (amount(split.activations), "activations: plan or arena, workspace", ""),
            (amount(split.indirection), "indirection buffers that operators keep", ""),
            (amount(split.runtime), "runtime: graph, kernels, the rest", ""),
        ]
    rows.append((amount(measured.peak_bytes), "peak of heap, loading included", measured.kind))
    rows.append((amount(measured.inference_growth), "the same without weights: what a budget counts", measured.kind))
    if gap is not None:
        rows.append((amount(gap.bytes), "GAP: activations measured beyond the plan", "measured - planned"))
        rows += [(amount(size), f"  {what}", "estimate") for what, size in gap.outside.items()]
        rows.append((amount(gap.unexplained), "  not explained", _remainder(profile)))
    elif profile.compiled:
        rows.append((NOT_MEASURED, "GAP: activations measured beyond the plan", "CompiledModel does not show its plan"))
    elif profile.planned is None:
        rows.append((NOT_MEASURED, "GAP: activations measured beyond the plan", "the runtime shows no plan"))
    return Rows(("bytes", "measured", "how"), tuple(rows))


def _remainder(profile: FileProfile) -> str:
    """What is known to be in the part that no estimate covers."""
    if profile.outside_plan:
        return "alignment, kernels' tables, error of the estimates"
    if profile.format == "tflite":
        return "packing buffers of the built-in matrix kernels"
    return "kernels' buffers outside the plan"


def print_rows(console: Console, rows: Rows) -> None:
    """Print one table; nothing where it has no rows."""
    if not rows.rows:
        return
    table = Table(box=ASCII2 if ascii_only(console) else SIMPLE_HEAD, pad_edge=False)
    for name in rows.columns:
        table.add_column(name, justify="right" if name in rows.numbers else "left", overflow="fold")
    for row in rows.rows:
        table.add_row(*map(Text, row))
    console.print(table)


def print_profile(profile: FileProfile, top: int = 8, file: IO[str] | None = None) -> None:
    """Print every table on ``file`` (stdout)."""
    console = console_for(file)
    console.print(Text(title(profile), "bold"), soft_wrap=True)
    about = profile.metadata
    if about is not None:
        height, width = about.size
        console.print(
            Text(f"SegFormer-{about.model.upper()}, {height}x{width}, {about.output.kind}, recipe {about.recipe}")
        )
    counts = count_operators(profile.reading.graph)
    console.print(
        Text(
            f"{amount(profile.file_bytes)} file, {amount(profile.reading.graph.constant_bytes)} of constants; "
            f"{counts.total} operators: {counts.integer} integer, {counts.float} float, the rest conversions; "
            f"{counts.delegated} delegated. Order from {profile.reading.order_from}."
        ),
        soft_wrap=True,
    )
    print_rows(console, graph_rows(profile))
    live = profile.reading.live
    if live.peak_operator is not None:
        name = short_name(profile.reading.graph.operators[live.peak_operator].name)
        console.print(Text(f"Peak: {amount(live.peak_bytes)} live at operator {live.peak_operator}, {name}", "bold"))
    print_rows(console, peak_rows(profile, top))
    print_rows(console, plan_rows(profile))
    print_rows(console, gap_rows(profile))
    for note in profile.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
