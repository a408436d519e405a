"""A memory budget and what became of it, for one target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segformer_edge.jsonfile import Fields

#: What a budget counts.
MEANINGS = {
    "arena": "the runtime's activation arena, the image included",
    "plan": "planned buffers and XNNPACK's workspace",
    "sram": "SRAM for activations, the image included, as planned by the compiler",
    "growth": "what loading and an inference add to the process, without weights",
}


@dataclass(frozen=True)
class Budget:
    """Bytes throughout. ``used`` decides: it is measured, or for an NPU planned by its compiler. ``forecast`` is what
    the search for a tiling went by, the liveness model or that compiler; None without a search.

    On a FAIL ``floor`` is the least that any tiling was found to need, ``blocked_by`` the operator behind it and
    ``largest_size`` the largest input, in the same proportions, that would fit by the model.
    """

    bytes: int
    meaning: str
    used: int
    forecast: int | None = None
    #: Fields of segformer_edge.rewrite.tiling.Tiling.
    tiling: Mapping[str, Any] | None = None
    floor: int | None = None
    blocked_by: str | None = None
    largest_size: tuple[int, int] | None = None

    @property
    def fits(self) -> bool:
        """Whether what was measured is within the budget."""
        return self.used <= self.bytes

    @property
    def margin(self) -> int:
        """Bytes left; negative where it does not fit."""
        return self.bytes - self.used

    def verdict(self) -> str:
        """One sentence: PASS with the margin, or FAIL with the floor, what blocks, and what would fit."""
        about = f"{kib(self.used)} of {kib(self.bytes)} ({MEANINGS[self.meaning]})"
        if self.fits:
            return f"PASS: {about}, {kib(self.margin)} to spare."
        words = [f"FAIL: {about}."]
        if self.floor is not None:
            words.append(f"No tiling needs less than {kib(self.floor)}; {self.blocked_by} blocks.")
        if self.largest_size is not None:
            words.append(f"--size {self.largest_size[0]}x{self.largest_size[1]} would fit.")
        elif self.floor is not None:
            words.append("No input size fits.")
        return " ".join(words)


def kib(count: int) -> str:
    """Bytes as text: "812.0 KiB", "1.50 MiB"."""
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / 2**20:.2f} MiB"


def read_budget(f: Fields) -> Budget:
    """From a report. Raises the reader's own error naming the field."""
    size = None
    if f.raw("largest_size") is not None:
        height, width = f.integers("largest_size", length=2, minimum=1)
        size = height, width
    used = f.integer("used", minimum=0)
    tiling = f.raw("tiling")
    return Budget(
        bytes=f.integer("bytes", minimum=1),
        meaning=f.text("meaning", tuple(MEANINGS)),
        used=used,
        forecast=None if f.raw("forecast") is None else f.integer("forecast", minimum=0),
        tiling=dict(tiling) if isinstance(tiling, dict) else None,
        floor=None if f.raw("floor") is None else f.integer("floor", minimum=0),
        blocked_by=f.optional("blocked_by", f.text),
        largest_size=size,
    )
