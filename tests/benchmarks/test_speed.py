"""The speed table from made-up timings, and what a default pipeline's file is scored by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segformer_edge.cli import EXIT_FAILED, EXIT_OK
from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.memory.measure import measure


def timing(ms: float):
    from latency import Timing

    return Timing(ms, ms, (ms, ms), 20)


def result(times: dict[str, float], mious: dict[str, float]):
    from speed_cases import LABELS, LANES, SETTINGS, Entry, Result

    entries = {
        label: Entry(label, timings={1: timing(times[label])} if label in times else None, miou=mious.get(label))
        for label in LABELS
    }
    return Result(SETTINGS["camvid"], LANES["litert"], entries)


TIMES = {"default float": 150.0, "default INT8": 200.0, "our float": 70.0, "our INT8": 40.0}


def test_a_fast_right_file_holds_and_a_fast_wrong_one_does_not():
    right = result(TIMES, {"our float": 0.70, "our INT8": 0.699})
    assert right.ratio("default INT8") == 5.0 and right.verdicts == {"ratio": True, "over_float": True, "right": True}
    wrong = result(TIMES, {"our float": 0.70, "our INT8": 0.30})
    assert wrong.verdicts["right"] is False
    slow = result({**TIMES, "our INT8": 60.0}, {})
    assert slow.verdicts == {"ratio": False, "over_float": False, "right": None}


def test_what_was_not_measured_is_null_and_said():
    from speed_table import markdown

    missing = result({"our INT8": 40.0}, {})
    assert missing.verdicts == {"ratio": None, "over_float": None, "right": None}
    assert missing.to_json()["ratio"] is None
    text = markdown([missing], [1, 2], "a machine")
    assert "not measured" in text and "40.0 (40.0 to 40.0)" in text
    tables = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert len(set(tables)) <= 2


def test_every_lane_s_setups_are_ways_to_run_its_files():
    from speed_cases import LANES

    from quantization.recipe import load_recipe
    from segformer_edge.export.targets import TARGETS
    from segformer_edge.memory.subjects import VARIANTS

    for lane in LANES.values():
        assert load_recipe(lane.recipe).name == lane.recipe
        for variant in filter(None, (lane.variant, lane.our_variant)):
            assert VARIANTS[variant] == TARGETS[lane.target].format


def test_openvino_is_scored_in_the_setup_that_was_timed(monkeypatch, tiny_run):
    import speed_score

    from segformer_edge.runtime.openvino import shared_core

    def precision() -> str:
        return str(shared_core().get_property("CPU", "INFERENCE_PRECISION_HINT"))

    before, seen = precision(), []
    monkeypatch.setattr(speed_score.Segmenter, "load", lambda file: seen.append(precision()))
    monkeypatch.setattr(speed_score, "evaluate", lambda *_, **__: type("Scored", (), {"miou": 0.5}))
    assert speed_score.score(tiny_run.file("openvino"), None, None, sidecar=True, variant="float32") == 0.5
    assert "float32" in seen[0] and precision() == before


def test_timings_are_taken_in_turns(monkeypatch):
    import latency

    order: list[tuple[str, int]] = []

    class Subject:
        def __init__(self, name: str, threads: int) -> None:
            self.name, self.threads = name, threads

        def load(self) -> None: ...
        def allocate(self) -> None: ...
        def inputs(self):
            return ()

        def prepare(self, arrays):
            return arrays

        def run(self, prepared) -> None:
            order.append((self.name, self.threads))

    monkeypatch.setattr(latency, "make_subject", lambda form, path, threads, variant: Subject(path.stem, threads))
    taken = latency.interleaved([Path("a.tflite"), Path("b.pte")], ["compiled", ""], threads=2, seconds=0.0)
    assert [each.runs for each in taken] == [latency.LEAST_TURNS] * 2
    assert order[:4] == [("a", 2), ("b", 2), ("a", 2), ("b", 2)]
    assert all(each.least <= each.quartiles[0] <= each.median <= each.quartiles[1] for each in taken)


def test_command_runs_both_sides_and_judges(tiny_run, tmp_path, monkeypatch, capsys):
    import speed
    from speed_cases import Entry

    files = {"int8": tiny_run.file("onnx"), "default": tiny_run.file("onnx")}
    monkeypatch.setattr(speed, "default_entry", lambda label, *rest: (Entry(label, "d.onnx"), files["default"]))
    monkeypatch.setattr(speed, "our_entry", lambda label, *rest: (Entry(label, "model.onnx"), files["int8"]))
    monkeypatch.setattr(speed, "timings", lambda files, variants, threads, seconds: [timing(t) for t in (9, 8, 3, 2)])
    words = ["--only", "onnxruntime", "--settings", "random", "--weights", str(tiny_run.weights.parent)]
    out = ["--out", str(tmp_path), "--ours", str(tmp_path / "ours"), "--threads", "1"]
    monkeypatch.setattr(speed, "prepare_source", lambda *arguments: None)
    assert speed.main([*words, *out]) == EXIT_OK
    (row,) = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert row["ratio"] == 4.0 and row["over_float"] == 1.5 and row["verdicts"]["ratio"] is True
    assert row["entries"][3]["peak_bytes"] == pytest.approx(measure(files["int8"]).inference_growth, rel=0.01)
    assert "4.00x" in (tmp_path / "speed.md").read_text() and "4.00x" in capsys.readouterr().out
    monkeypatch.setattr(speed, "timings", lambda files, variants, threads, seconds: [timing(t) for t in (9, 8, 3, 4)])
    assert speed.main([*words, *out]) == EXIT_FAILED


def test_rows_of_an_earlier_run_stay(tmp_path):
    import speed
    from machine import machine

    record = tmp_path / "bench.json"
    earlier = result(TIMES, {"our float": 0.70, "our INT8": 0.699})
    record.write_text(json.dumps({"machine": machine(), "results": [earlier.to_json()]}))
    assert speed.merged([], record) == [earlier]
    again = result({**TIMES, "our INT8": 50.0}, {})
    assert speed.merged([again], record) == [again]
    record.write_text(json.dumps({"machine": "another", "results": [earlier.to_json()]}))
    assert speed.merged([], record) == []
    record.write_text(json.dumps({"machine": machine(), "results": [{}]}))
    with pytest.raises(ArtifactError, match="no record"):
        speed.merged([], record)


def test_wrong_options_are_named():
    import speed

    for words, match in ((["--only", "onnxruntim"], "onnxruntime"), (["--threads", "1,x"], "1,x")):
        with pytest.raises(UsageError, match=match):
            speed.main(words)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_file_without_a_sidecar_is_read_from_itself(tiny_run, target):
    from speed_score import described

    from segformer_edge.runtime.base import load_runtime
    from segformer_edge.runtime.segmenter import Segmenter

    file, ours = tiny_run.file(target), Segmenter.load(tiny_run.file(target))
    metadata = described(file, ours.class_names)
    assert metadata.size == ours.metadata.size and metadata.output.shape == ours.metadata.output.shape
    again = Segmenter(metadata, load_runtime(file, metadata, 1))
    assert np.array_equal(again(tiny_run.images[0]), ours(tiny_run.images[0]))


def test_a_channels_last_file_is_no_default_pipeline_s(tiny_run):
    from speed_score import described

    with pytest.raises(ArtifactError, match="not an NCHW image"):
        described(tiny_run.file("tflite"), ("a",))
