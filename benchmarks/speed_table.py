"""The tables of docs/speed.md."""

from __future__ import annotations

from collections.abc import Sequence

from marked_block import lines
from memory_table import bytes_text
from speed_cases import LABELS, Entry, Result

MARK = "speed-table"
_NONE = "-"


def _ms(entry: Entry, threads: int) -> str:
    timing = (entry.timings or {}).get(threads)
    if timing is None:
        return _NONE
    low, high = timing.quartiles
    return f"{timing.median:.1f} ({low:.1f} to {high:.1f})"


def _text(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)


def _verdict(value: bool | None) -> str:
    return {None: "not measured", True: "yes", False: "**no**"}[value]


def ratio_table(results: Sequence[Result]) -> list[str]:
    """Each lane: how many times as fast as the default and as our own float file, and what it must reach."""
    header = ["", "compared with", "ours is", "at least", "holds", "over our float", "at least", "holds"]
    rows = [
        [
            f"{result.lane.title}, {result.setting.title}",
            result.lane.against,
            f"{_text(result.ratio(result.lane.against), '.2f')}x",
            f"{result.lane.least_ratio}x",
            _verdict(result.verdicts["ratio"]),
            f"{_text(result.ratio(LABELS[2]), '.2f')}x",
            f"{result.lane.least_over_float}x",
            _verdict(result.verdicts["over_float"]),
        ]
        for result in results
    ]
    return lines(header, rows)


def file_table(results: Sequence[Result], threads: Sequence[int]) -> list[str]:
    """Every file: time by threads, mIoU, peak memory, size, seconds to build."""
    header = ["", *(f"ms, {count} thread{'s' * (count > 1)}" for count in threads), "mIoU", "peak", "file", "built in"]
    rows = [
        [
            f"{result.lane.title}, {result.setting.title}: {entry.label}",
            *(_ms(entry, count) for count in threads),
            _text(entry.miou, ".4f"),
            bytes_text(entry.peak_bytes) if entry.peak_bytes else _NONE,
            bytes_text(entry.file_bytes) if entry.file_bytes else _NONE,
            _NONE if entry.build_seconds is None else f"{entry.build_seconds:.0f} s",
        ]
        for result in results
        for entry in result.entries.values()
    ]
    return lines(header, rows)


def markdown(results: Sequence[Result], threads: Sequence[int], machine: str) -> str:
    """The whole block, with what failed below it."""
    errors = [
        f"- {result.lane.title}, {result.setting.title}, {entry.label}: {entry.error}"
        for result in results
        for entry in result.entries.values()
        if entry.error
    ]
    parts = [
        f"Measured on {machine}. Medians of runs in turns, one thread; quartiles in brackets.",
        "",
        *ratio_table(results),
        "",
        *file_table(results, threads),
        *(["", "Not measured:", "", *errors] if errors else []),
    ]
    return "\n".join(parts)
