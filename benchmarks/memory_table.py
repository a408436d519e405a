"""docs/memory.md: the marked block is replaced, the text around it stays."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from memory_cases import MAX_CPU_DIFFERENCE, MAX_SLOWDOWN, MIB, Row, Side

from segformer_edge.errors import UsageError
from segformer_edge.jsonfile import write_bytes

NOT_MEASURED = "not measured"
BEGIN, END = "<!-- memory-table -->", "<!-- /memory-table -->"


def replace_block(text: str, block: str, where: str | os.PathLike[str] = "the text") -> str:
    """``text`` with ``block`` between the two marks. Raises UsageError where there is not just one pair of them."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if text.count(BEGIN) != 1 or text.count(END) != 1 or not pattern.search(text):
        raise UsageError(
            f"{os.fspath(where)} has no block to replace.", hint=f"It stands between {BEGIN} and {END}, each once."
        )
    return pattern.sub(lambda _: f"{BEGIN}\n{block.strip()}\n{END}", text)


def update(path: Path, block: str) -> None:
    """Replace the block of the file ``path``; a missing file is started with the block alone."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    write_bytes(path, replace_block(text, block, path).encode())


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


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---", *("---:" for _ in header[1:])]
    return ["| " + " | ".join(cells) + " |" for cells in (header, ruler, *rows)]


def peak_table(rows: Sequence[Row]) -> list[str]:
    """The default's figure, ours without and with a budget, the limit, and whether it holds."""
    header = ["", "default pipeline", "ours, no budget", "ours", "at most", "holds", "default / ours"]
    return _lines(
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
    return _lines(
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
    return _lines(header, table)


def missing_lines(rows: Sequence[Row]) -> list[str]:
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
    missing = missing_lines(rows)
    if missing:
        parts += ["", "Not measured:", "", *missing]
    return "\n".join(parts)
