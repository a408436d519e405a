"""``python -m segformer_edge.profile FILE --on ethos-u...``."""

from __future__ import annotations

import json

import pytest

from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.profile import main


def profile(capsys, *arguments: object) -> dict:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_plan_is_the_exporters(npu_run, capsys):
    report = npu_run.report_of("ethos-u85-256").npu
    found = profile(capsys, npu_run.out / report.host_file, "--on", "ethos-u85-256")
    assert found["on_npu"] == found["operators"] == report.operators and found["left"] == []
    assert {mode["mode"]: mode["sram_bytes"] for mode in found["modes"]} == {
        mode.mode: mode.sram_bytes for mode in report.modes
    }
    assert found["modes"][0]["mode"] == "Sram_Only"
    assert {step["target"] for step in found["steps"]} == {"NPU"}
    assert max(step["sram_bytes"] for step in found["steps"]) == found["modes"][0]["sram_bytes"]
    assert found["kinds"]["cycles"] == "compiler's estimate"


def test_a_compiled_file_stands_for_its_graph(npu_run, capsys):
    found = profile(capsys, npu_run.file("ethos-u85-256"), "--on", "ethos-u55-256")
    assert found["file"].endswith("model.ethos-u85-256.host.tflite")
    assert any("compiled already" in note for note in found["notes"])
    assert {left["operator"] for left in found["left"]} == {"RESIZE_BILINEAR"}  # of U85's graph on a U55


def test_the_table_names_what_is_left(full_run, capsys):
    """An integer file for CPUs: what it would need is said by operator."""
    assert main([str(full_run.file("tflite")), "--on", "ethos-u55-128", "--top", "3"]) == 0
    out = capsys.readouterr().out
    assert "left to the CPU: BATCH_MATMUL" in out and "not measured" in out and "Shared_Sram" in out


def test_wrong_questions(npu_run, full_run, tmp_path):
    file = str(npu_run.out / "model.ethos-u85-256.host.tflite")
    with pytest.raises(UsageError, match="Unknown NPU"):
        main([file, "--on", "ethos-u99-1"])
    with pytest.raises(UsageError, match="--operators is for files that run here"):
        main([file, "--on", "ethos-u85-256", "--operators"])
    with pytest.raises(UsageError, match=r"takes an integer \.tflite"):
        main([str(full_run.file("onnx")), "--on", "ethos-u85-256"])
    with pytest.raises(ArtifactError, match="There is no file"):
        main([str(tmp_path / "none.tflite"), "--on", "ethos-u85-256"])
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"\x20\0\0\0TFL3" + b"\xff" * 64)
    with pytest.raises(ArtifactError, match="damaged"):
        main([str(damaged), "--on", "ethos-u85-256"])
