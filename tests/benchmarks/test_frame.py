"""The parts of a frame, from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import pytest

from segformer_edge.cli import run


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import frame

    yield frame
    sys.modules.pop("frame")


def test_every_part_of_every_file_is_measured(benchmark, tiny_run, labels_run, tmp_path, capsys):
    image = tmp_path / "street.png"
    cv2.imwrite(str(image), tiny_run.images[0])
    files = [str(tiny_run.file("tflite")), str(labels_run.file("onnx"))]
    options = ["--frame", "160x90", "--image", str(image), "--runs", "2", "--full-logits"]
    assert run(benchmark.main, [*files, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["width"], found["height"], found["runs"]) == (160, 90, 2)
    assert [row["file"] for row in found["files"]] == files
    for row in found["files"]:
        parts = [row[f"{part}_ms"] for part in ("preprocess", "inference", "postprocess")]
        assert min(parts) > 0 and row["total_ms"] == pytest.approx(sum(parts))
        assert row["postprocess_share"] == pytest.approx(parts[2] / sum(parts))
    # A file that gives labels has no logits to upsample.
    assert found["files"][0]["full_logits_ms"] > 0 and found["files"][1]["full_logits_ms"] is None
    assert run(benchmark.main, [*files, *options]) == 0
    printed = capsys.readouterr().out
    assert "160x90" in printed and all(file in printed.replace("\n", "") for file in files)


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--frame", "720p"], "WIDTHxHEIGHT"), (["--frame", "0x90"], "WIDTHxHEIGHT"), (["--runs", "0"], "--runs")],
)
def test_what_is_no_frame_is_a_usage_error(benchmark, options, words, capsys):
    assert run(benchmark.main, ["model.tflite", *options]) == 2
    assert words in capsys.readouterr().err
