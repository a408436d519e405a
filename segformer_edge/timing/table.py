"""Operator times as tables for the terminal, and as the JSON of ``profile --operators --json``.

::

    schema_version  1
    file, format, runtime, versions, device, threads, runs
    inference_ms    median and min with the profiler on; plain_ms: the same without it
    attributed_ms, unattributed_ms  sum over the operators; median of the rest of each inference
    totals          type, kernel, delegated, precision, count, ms and min_ms (or null), share: the longest first
    operators       type, name, kernel, delegate (or null), precision (or null), shape, ms and min_ms (median and
                    shortest, or null), fused (names of the file's operators that it does, where the runtime says so),
                    share: in the order of execution
    notes           what is not known, and why

Shares are fractions of attributed_ms + unattributed_ms. What is not known is null.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from rich.text import Text

from segformer_edge.memory.table import Rows, print_rows
from segformer_edge.memory.timeline import short_name
from segformer_edge.report.table import NOT_MEASURED, console_for
from segformer_edge.timing.operators import OperatorProfile, OperatorTime, known_sum

SCHEMA_VERSION = 1
#: What OpenVINO adds to names where it cuts an operator up.
_COMPILED_PARTS = ("/WithoutBiases", "/DequantizationMultiply", "/DequantizationSubtract")
_NUMBERS = ("ms", "min", "share", "count")


def to_json(profile: OperatorProfile) -> dict[str, Any]:
    """The profile as the module's docstring describes it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "file": profile.file,
        "format": profile.format,
        "runtime": profile.runtime,
        "versions": profile.versions,
        "device": profile.device,
        "threads": profile.threads,
        "runs": len(profile.inference),
        "inference_ms": {"median": profile.inference_ms, "min": min(profile.inference)},
        "plain_ms": {"median": profile.plain_ms, "min": min(profile.plain)},
        "attributed_ms": profile.attributed_ms,
        "unattributed_ms": profile.unattributed_ms,
        "totals": [{**asdict(total), "share": profile.share(total.ms)} for total in profile.totals()],
        "operators": [{**asdict(op), "share": profile.share(op.ms)} for op in profile.operators],
        "notes": list(profile.notes),
    }


def total_rows(profile: OperatorProfile) -> Rows:
    """Per type, kernel and precision; then the sum and the rest."""
    rows = [
        (
            _ms(t.ms),
            _ms(t.min_ms),
            _percent(profile.share(t.ms)),
            str(t.count),
            t.type,
            _ran(t.kernel, t.delegated),
            t.precision or NOT_MEASURED,
        )
        for t in profile.totals()
    ]
    for name, ms in (("attributed", profile.attributed_ms), ("not attributed", profile.unattributed_ms)):
        rows.append((_ms(ms), "", _percent(profile.share(ms)), "", name, "", ""))
    return Rows(("ms", "min", "share", "count", "operator", "runs in", "precision"), tuple(rows), _NUMBERS)


def operator_rows(profile: OperatorProfile, top: int) -> Rows:
    """The ``top`` longest operators, and the rest as one line."""
    ordered = sorted(enumerate(profile.operators), key=lambda pair: -(pair[1].ms or 0))
    rows = []
    for number, op in ordered[:top]:
        rows.append((
            _ms(op.ms), _ms(op.min_ms), _percent(profile.share(op.ms)), str(number), op.type, label(op),
            "x".join(map(str, op.shape)), _ran(op.kernel, op.delegate is not None), op.precision or NOT_MEASURED,
        ))  # fmt: skip
    rest = [op for _, op in ordered[top:]]
    if rest:
        ms, least = known_sum(op.ms for op in rest), known_sum(op.min_ms for op in rest)
        rows.append((_ms(ms), _ms(least), _percent(profile.share(ms)), "", f"{len(rest)} more", "", "", "", ""))
    columns = ("ms", "min", "share", "#", "operator", "name", "result", "runs in", "precision")
    return Rows(columns, tuple(rows), (*_NUMBERS, "#"))


def print_operators(profile: OperatorProfile, top: int, file: IO[str] | None = None) -> None:
    """Print totals and the ``top`` longest operators on ``file`` (stdout)."""
    console = console_for(file)
    tools = ", ".join(f"{name} {version}" for name, version in profile.versions.items())
    threads = f"{profile.threads} thread{'s' * (profile.threads > 1)}"
    title = f"{Path(profile.file).name} ({profile.runtime}, {tools}, {profile.device}, {threads})"
    console.print(Text(title, "bold"), soft_wrap=True)
    runs = len(profile.inference)
    console.print(
        Text(
            f"Inference {profile.inference_ms:.2f} ms with the profiler, {profile.plain_ms:.2f} ms without "
            f"(medians of {runs}); in operators {profile.attributed_ms:.2f} ms, not attributed "
            f"{profile.unattributed_ms:.2f} ms."
        ),
        soft_wrap=True,
    )
    for rows in (total_rows(profile), operator_rows(profile, top)):
        print_rows(console, rows)
    notes = list(profile.notes)
    if profile.disturbed:
        notes.insert(
            0, "Other programs took the CPU meanwhile. Medians of operators add up to less; min is the shortest."
        )
    for note in notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)


def label(op: OperatorTime) -> str:
    """The name, short, and how many more of the file's operators are in it."""
    name = op.name
    for part in _COMPILED_PARTS:
        name = name.removesuffix(part)
    more = len(op.fused) - 1
    return short_name(name) + (f" and {more} more" if more > 0 else "")


def _ms(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return NOT_MEASURED if share is None else f"{100 * share:.1f} %"


def _ran(kernel: str, delegated: bool) -> str:
    return f"XNNPACK: {kernel}" if delegated else kernel
