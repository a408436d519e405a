"""``--memory-budget``: tiled until it fits, measured, the same labels; or FAIL with what would help."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from segformer_edge import pipeline
from segformer_edge.cli import parse_bytes, run
from segformer_edge.data.scenes import draw_scene
from segformer_edge.errors import UsageError
from segformer_edge.export.exporter import Exported, Plan
from segformer_edge.export.pool import ExportFailure
from segformer_edge.export.targets import choose_targets
from segformer_edge.pipeline import exit_code, quantize, tighter_budget
from segformer_edge.prepare import QuantizeOptions
from segformer_edge.quantize import main
from segformer_edge.report.budget import Budget
from segformer_edge.report.schema import Report, TargetReport
from segformer_edge.rewrite.tiling import Tiling
from segformer_edge.runtime.segmenter import Segmenter

SIZE = (64, 64)


@pytest.fixture(scope="module")
def run_with(tmp_path_factory):
    """Quantizes the demo checkpoint to an integer-only .tflite with a budget; gives the folder and the report."""

    def go(budget: int | None, size: tuple[int, int] = SIZE):
        out = tmp_path_factory.mktemp("budget") / "out"
        options = QuantizeOptions(
            out,
            size=size,
            output="labels",
            targets=choose_targets(["tflite"]),
            recipe="full",
            memory_budget=budget,
            profile=False,
        )
        return out, quantize(options)

    return go


@pytest.fixture(scope="module")
def untiled(run_with):
    return run_with(None)


@pytest.fixture(scope="module")
def tiled(run_with, untiled):
    """A budget of two thirds of what the whole network takes in LiteRT's arena."""
    return run_with(100 * 1024)


def test_a_file_within_its_budget_says_so(tiled):
    out, report = tiled
    (target,) = report.targets
    budget = target.budget
    assert target.status == "ok" and exit_code(report.targets) == 0
    assert budget.meaning == "arena" and budget.used <= 100 * 1024 and budget.fits
    assert budget.forecast == pytest.approx(budget.used, rel=0.10)
    assert budget.verdict().startswith("PASS")
    assert budget.tiling["head"] > 1
    saved = Report.load(out / "report.json").targets[0].budget
    assert (saved.used, saved.forecast, saved.verdict()) == (budget.used, budget.forecast, budget.verdict())


def test_tiling_changes_no_label(tiled, untiled):
    whole, bands = (Segmenter.load(out / "model.tflite") for out, _ in (untiled, tiled))
    for seed in range(3):
        batch = whole.prepare(draw_scene(seed, SIZE)[0])
        assert np.array_equal(whole.infer(batch), bands.infer(batch))


def test_memory_is_measured_without_a_budget_too(untiled):
    memory = untiled[1].targets[0].memory
    assert memory.peak_bytes > 0 and memory.weights_bytes > 0
    assert memory.planned_bytes is None  # LiteRT's CompiledModel does not show its plan
    assert memory.kind.startswith("measured") and memory.device.startswith("host")


def test_what_does_not_fit_fails_with_code_3(run_with):
    out, report = run_with(1024, (32, 32))
    (target,) = report.targets
    assert target.status == "over_budget" and exit_code(report.targets) == 3
    assert target.budget.floor == target.budget.used > 1024 and " in " in target.budget.blocked_by
    assert target.error.startswith("FAIL") and "No input size fits" in target.error
    assert (out / "model.tflite").exists()  # the smallest that was found, marked as what it is


@pytest.mark.parametrize("text", ["2X", "0", "-1", "", "1.5.2M", "K"])
def test_a_budget_is_an_amount_of_memory(text, tmp_path, capsys):
    assert run(main, [f"--memory-budget={text}", "--out", str(tmp_path / "out")]) == 2
    assert "--memory-budget 2M" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "count"),
    [("2M", 2 << 20), ("384K", 384 << 10), ("1.5 MiB", 3 << 19), ("100000", 100_000), ("1g", 1 << 30), ("64kb", 65536)],
)
def test_amounts(text, count):
    assert parse_bytes(text) == count


def test_an_amount_below_a_byte_is_none():
    with pytest.raises(UsageError):
        parse_bytes("0.0001")


def test_verdicts():
    assert "to spare" in Budget(2048, "growth", 1024).verdict()
    failed = Budget(1000, "arena", 4000, floor=4000, blocked_by="SOFTMAX in stages.0", largest_size=(96, 128))
    words = failed.verdict()
    assert failed.margin == -3000 and not failed.fits
    assert "FAIL" in words and "SOFTMAX in stages.0" in words and "--size 96x128" in words
    assert json.dumps(failed.verdict())


def test_where_the_model_was_wrong_the_next_plan_is_for_less():
    plan = Plan(Tiling(), "growth", forecast=900, fits=True, blocked_by="ADD in stages.0")
    outcome = Exported((), None, None, None, {}, plan=plan)
    report = TargetReport("tflite", "over_budget", error="FAIL", budget=Budget(1000, "growth", 1100, 900))
    assert tighter_budget(report, outcome) == 809
    assert tighter_budget(replace(report, status="ok"), outcome) is None
    assert tighter_budget(report, replace(outcome, plan=replace(plan, fits=False))) is None
    assert tighter_budget(report, replace(outcome, plan=None)) is None
    assert tighter_budget(report, ExportFailure("no")) is None


def test_a_second_attempt_that_fails_leaves_the_first(run_quantize, tiny_weights, monkeypatch):
    export, attempts = pipeline._export, []

    def once(*arguments):
        attempts.append(arguments)
        return export(*arguments) if len(attempts) == 1 else {"onnx": ExportFailure("the compiler ended")}

    monkeypatch.setattr(pipeline, "_export", once)
    monkeypatch.setattr(pipeline, "tighter_budget", lambda report, outcome: 1 << 20)
    run = run_quantize(tiny_weights, (32, 32), targets="onnx")
    assert len(attempts) == 2
    assert run.report_of("onnx").status == "ok" and Segmenter.load(run.file("onnx"))
