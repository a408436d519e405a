"""What a file must keep to, and the checks that follow: each figure beside the bound it was held against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segformer_edge.jsonfile import Fields
from segformer_edge.report.budget import MEANINGS, kib

if TYPE_CHECKING:
    from segformer_edge.report.schema import TargetReport

#: A file that agrees with the quantized reference on fewer pixels than this computes something else than it says.
MIN_AGREEMENT = 0.90


@dataclass(frozen=True)
class Gates:
    """The bounds of a run: ``max_drop`` in points of mIoU (1.0 is 0.01), ``memory_budget`` in bytes or None,
    ``min_agreement`` the share of pixels on which a file and the quantized reference give the same class.
    """

    max_drop: float
    memory_budget: int | None = None
    min_agreement: float = MIN_AGREEMENT

    def __post_init__(self) -> None:
        if not self.max_drop >= 0:
            raise ValueError(f"max_drop is {self.max_drop}, not 0 or more")
        if self.memory_budget is not None and self.memory_budget < 1:
            raise ValueError(f"memory_budget is {self.memory_budget}, not 1 or more")
        if not 0 <= self.min_agreement <= 1:
            raise ValueError(f"min_agreement is {self.min_agreement}, not a fraction")

    def drop_fits(self, drop: float) -> bool:
        """Whether a loss of mIoU (a fraction) passes; one exactly at the limit does."""
        return drop * 100.0 <= self.max_drop + 1e-9


@dataclass(frozen=True)
class Check:
    """One gate and one file. ``passed`` is None where nothing was checked; ``about`` then says why."""

    name: str
    passed: bool | None
    figure: str = ""
    bound: str = ""
    about: str = ""

    @property
    def verdict(self) -> str:
        """PASS, FAIL or "not checked"."""
        return "not checked" if self.passed is None else "PASS" if self.passed else "FAIL"


def percent(share: float) -> str:
    """A share as text, "99.98 %": cut, not rounded, since 99.99 must not read as "all"."""
    return f"{math.floor(share * 1e4 + 1e-9) / 100:.2f} %"


def checks_of(target: TargetReport, gates: Gates) -> tuple[Check, ...]:
    """Agreement, accuracy and memory, in that order; of a target without a file, that alone."""
    if target.status == "failed" and target.agreement_checked is None:
        return (Check("file written and run", False, about=target.error or ""),)
    return _agreement(target, gates), _accuracy(target, gates), _memory(target, gates)


def _agreement(target: TargetReport, gates: Gates) -> Check:
    name, share = "agreement", target.agreement_checked
    if share is None:
        return Check(name, None, about="the report is of an earlier version")
    figure = f"{percent(share)} of pixels as the INT8 reference"
    return Check(name, share >= gates.min_agreement, figure, f"at least {gates.min_agreement:.0%}")


def _accuracy(target: TargetReport, gates: Gates) -> Check:
    name = "accuracy"
    if target.miou_drop is None:
        why = "the file was refused before" if target.status == "failed" else "no labelled images (--eval)"
        return Check(name, None, about=why)
    fits = gates.drop_fits(target.miou_drop)
    exact = target.miou_drop * 100
    # What is beyond the bound must not read as the bound.
    digits = 2 if fits or round(exact, 2) > gates.max_drop else 4
    points = round(exact, digits) + 0.0  # no "-0.00"
    figure = f"{points:.{digits}f} points of mIoU lost" if points >= 0 else f"{-points:.2f} points of mIoU gained"
    return Check(name, fits, figure, f"at most {gates.max_drop:g} lost against float32")


def _memory(target: TargetReport, gates: Gates) -> Check:
    name, budget = "memory", target.budget
    if budget is None:
        why = "no budget was given" if gates.memory_budget is None else "the file was refused before"
        return Check(name, None, about=why)
    return Check(name, budget.fits, kib(budget.used), f"at most {kib(budget.bytes)}", MEANINGS[budget.meaning])


def read_gates(f: Fields) -> Gates:
    """From a report. Raises the reader's own error naming the field."""
    try:
        return Gates(
            f.number("max_drop"),
            None if f.raw("memory_budget") is None else f.integer("memory_budget", minimum=1),
            f.number("min_agreement"),
        )
    except ValueError as error:
        f.fail("max_drop", f"or min_agreement is out of its range: {error}")
