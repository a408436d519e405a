"""What a file is held against."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segformer_edge.report.gates import Gates, checks_of, percent
from segformer_edge.report.schema import TargetReport


def verdicts(target: TargetReport, gates: Gates) -> list[str]:
    return [check.verdict for check in checks_of(target, gates)]


@pytest.mark.parametrize(("drop", "passed"), [(0.0099, True), (0.01, True), (0.0101, False), (-0.2, True)])
def test_a_loss_exactly_at_the_limit_passes(report, drop, passed):
    check = checks_of(replace(report.targets[0], miou_drop=drop), Gates(1.0))[1]
    assert check.passed is passed and check.bound == "at most 1 lost against float32"


@pytest.mark.parametrize(("drop", "figure"), [(0.01004, "1.0040 points"), (0.01, "1.00 points"), (0.02, "2.00 points")])
def test_what_is_beyond_the_limit_does_not_read_as_the_limit(report, drop, figure):
    assert checks_of(replace(report.targets[0], miou_drop=drop), Gates(1.0))[1].figure.startswith(figure)


@given(hundredths=st.integers(0, 10_000))
def test_shares_are_cut_and_exact_ones_stay(hundredths):
    assert percent(hundredths / 10_000) == f"{hundredths // 100}.{hundredths % 100:02d} %"
    assert percent((hundredths + 0.9) / 10_000) == percent(hundredths / 10_000)


def test_what_was_not_asked_for_is_not_a_pass(report, over_budget):
    bare = replace(report.targets[0], miou=None, miou_drop=None)
    assert verdicts(bare, Gates(1.0)) == ["PASS", "not checked", "not checked"]
    assert verdicts(over_budget, Gates(1.0, 2 * 2**20)) == ["PASS", "PASS", "FAIL"]
    refused = TargetReport("x", "failed", error="computes something else", agreement_checked=0.8999)
    first, *others = checks_of(refused, Gates(1.0, 1000))
    assert first.passed is False and "89.99 %" in first.figure
    assert all(check.passed is None and check.about == "the file was refused before" for check in others)


@pytest.mark.parametrize("bad", [{"max_drop": -1.0}, {"max_drop": float("nan")}, {"memory_budget": 0}])
def test_bounds_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Gates(**{"max_drop": 1.0, **bad})
