"""The tables of docs/memory.md."""

from __future__ import annotations

from collections.abc import Sequence

from marked_block import lines
from memory_cases import MAX_CPU_DIFFERENCE, MAX_SLOWDOWN, MIB, Row, Side

NOT_MEASURED = "not measured"
#: Name of the block in docs/memory.md.
MARK = "memory-table"


def bytes_text(value: int | None) -> str:
    """``1572864`` -> ``1.50 MiB``."""
    if value is None:
        return NOT_MEASURED
    return f"{value / MIB:.2f} MiB" if value >= MIB / 10 else f"{value / 1024:.1f} KiB"


def share_text(value: float | None) -> str:
    """``0.123`` -> ``+12.3 %``."""
    return NOT_MEASURED if value is None else f"{value:+.1%}".replace("%", " %")


def _latency(side: Side) -> str:
    return NOT_MEASURED if side.latency_ms is None else f"{side.latency_ms:.1f}"


def _verdict(value: bool | None) -> str:
    return {None: "", True: "yes", False: "**no**"}[value]


def peak_table(rows: Sequence[Row]) -> list[str]:
    """The default's figure, ours without and with a budget, the limit, and whether it holds."""
    header = ["", "default pipeline", "ours, no budget", "ours", "at most", "holds", "default / ours"]
    return lines(
        header,
        [
            [
                row.case.title,
                *(bytes_text(side.figure_bytes) for side in (row.default, row.untiled, row.ours)),
                bytes_text(row.limit_bytes) if row.limit_bytes else "a tenth",
                _verdict(row.verdicts["within_limit"]),
                f"{row.ratio:.1f}x" if row.ratio else "",
            ]
            for row in rows
        ],
    )


def latency_table(rows: Sequence[Row]) -> list[str]:
    """Median milliseconds of the three files, and the price of tiling."""
    header = ["ms, one thread", "default pipeline", "ours, no budget", "ours", "price", f"<= {MAX_SLOWDOWN:.0%}"]
    return lines(
        header,
        [
            [
                row.case.title.rpartition(",")[0],
                *(_latency(side) for side in (row.default, row.untiled, row.ours)),
                share_text(row.slowdown),
                _verdict(row.verdicts["slowdown"]),
            ]
            for row in rows
        ],
    )


def arm_table(rows: Sequence[Row]) -> list[str]:
    """The same file here and on an emulated ARM CPU."""
    header = ["the same file", "x86-64", "AArch64", "difference", f"<= {MAX_CPU_DIFFERENCE:.0%}"]
    table = []
    for row in rows:
        for side in (row.default, row.ours):
            gap = side.cpu_difference
            table.append(
                [
                    f"{row.case.title}, {side.label}",
                    bytes_text(side.figure_bytes),
                    bytes_text(side.arm_bytes) + (f" ({side.arm_cpu})" if side.arm_bytes else ""),
                    NOT_MEASURED if gap is None else f"{gap:.2%}".replace("%", " %"),
                    _verdict(None if gap is None else gap <= MAX_CPU_DIFFERENCE),
                ]
            )
    return lines(header, table)


def missinglines(rows: Sequence[Row]) -> list[str]:
    """Why figures are missing, one line a reason."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for side in (row.default, row.untiled, row.ours):
            for reason, where in ((side.error, ""), (side.arm_error, ", AArch64")):
                if reason:
                    reasons.setdefault(reason, []).append(f"{row.case.name} ({side.label}{where})")
    return [f"- {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def markdown(rows: Sequence[Row], machine: str) -> str:
    """The whole block."""
    parts = [f"Measured on: {machine}.", "", *peak_table(rows), "", *latency_table(rows), "", *arm_table(rows)]
    missing = missinglines(rows)
    if missing:
        parts += ["", "Not measured:", "", *missing]
    return "\n".join(parts)
