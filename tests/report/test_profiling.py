"""The look into finished files: what a run's report has, and what becomes of a profile that fails."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from segformer_edge.errors import MissingBackendError
from segformer_edge.report import profiling
from segformer_edge.report.profiling import look_into, runs_within
from segformer_edge.report.schema import Latency, Report, TargetReport
from segformer_edge.worker_process import MeasurementError


def test_a_run_has_operators_and_a_timeline_of_every_file(tiny_run):
    written = Report.load(tiny_run.out / "report.json")
    assert len(written.targets) == 4
    for target in written.targets:
        times, timeline = target.profile.operators, target.profile.timeline
        assert times.operators >= len(times.slowest) > 3 and times.inference_ms > 0
        known = [op.ms for op in times.slowest if op.ms is not None]
        assert known == sorted(known, reverse=True)
        assert sum(op.share for op in times.kinds if op.share is not None) <= 1.0 + 1e-9
        assert any(op.precision == "int8" for op in (*times.kinds, *times.slowest)), target.target
        assert max(timeline.live_bytes) == timeline.peak_bytes > 0 and timeline.peak_operator
    page = (tiny_run.out / "report.html").read_text()
    assert page.count('<svg class="timeline"') == 4
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(names)


def test_the_runs_fit_into_seconds():
    assert runs_within(1.0) == 10 and runs_within(250.0) == 5 and runs_within(1e4) == 0 and runs_within(0.0) == 10


def test_a_profile_that_fails_is_a_note(tiny_run, monkeypatch):
    def refuse(path, **_):
        raise MeasurementError(f"'{path}' on host ended with signal SIGSEGV: it said nothing")

    monkeypatch.setattr(profiling, "profile_operators", refuse)
    monkeypatch.setattr(profiling, "profile_file", lambda *_, **__: 1 / 0)
    found = look_into(tiny_run.report_of("onnx"), tiny_run.out)
    assert found.profile.operators is None and found.profile.timeline is None and found.svg is None
    assert found.profile.timeline_note == "No memory timeline: ZeroDivisionError: division by zero"
    assert found.profile.operators_note == (
        "Not timed: 'model.onnx' on host ended with signal SIGSEGV: it said nothing"
    )


def test_a_chart_that_cannot_be_drawn_leaves_its_figures(tiny_run, monkeypatch):
    def missing(*_, **__):
        raise MissingBackendError("matplotlib, which the chart needs,", "report")

    monkeypatch.setattr(profiling, "timeline_svg", missing)
    monkeypatch.setattr(profiling, "profile_operators", lambda *_, **__: 1 / 0)
    found = look_into(tiny_run.report_of("onnx"), tiny_run.out)
    assert found.svg is None and found.profile.timeline.peak_bytes > 0
    assert "pip install 'segformer-edge[report]'" in found.profile.timeline_note


def test_slow_files_are_not_timed_and_failed_ones_not_looked_into(tiny_run, monkeypatch):
    monkeypatch.setattr(profiling, "profile_operators", lambda *_, **__: pytest.fail("it was run"))
    slow = replace(tiny_run.report_of("onnx"), latency_ms=Latency(9000.0, 9000.0, 1, 10, "host x86_64"))
    found = look_into(slow, tiny_run.out)
    assert found.profile.operators is None and found.profile.timeline is not None
    assert "an inference takes 9.0 s. Run: python -m segformer_edge.profile model.onnx" in found.profile.operators_note
    assert look_into(TargetReport("onnx", "failed", error="no"), tiny_run.out) is None
