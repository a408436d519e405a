"""What a report says about making its run again."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

import numpy as np

from segformer_edge.cli import run
from segformer_edge.errors import UsageError
from segformer_edge.prepare import QuantizeOptions
from segformer_edge.quantize import main
from segformer_edge.report.reproduction import changed_options, command_line, sha256_of_images, versions_of
from segformer_edge.report.schema import Report


def test_the_command_survives_a_shell():
    argv = ["--calibration", "my images/$HOME", "--out", "it's", "--targets", "onnx,tflite"]
    assert shlex.split(command_line(argv)) == ["python", "-m", "segformer_edge.quantize", *argv]


def test_the_command_passes_its_arguments_on(monkeypatch, tmp_path, capsys):
    seen = []

    def stop(options, tell):
        seen.append(options)
        raise UsageError("stopped by the test")

    monkeypatch.setattr("segformer_edge.pipeline.quantize", stop)
    argv = ["--size", "64", "--targets", "onnx", "--no-profile", "--out", str(tmp_path / "out")]
    assert run(main, argv) == 2 and "stopped by the test" in capsys.readouterr().err
    assert list(seen[0].command) == argv and seen[0].profile is False
    assert run(main, argv[:4]) == 2 and seen[1].profile is True


def test_options_are_named_where_they_differ():
    options = QuantizeOptions(Path("out/a"), size=(64, 96), memory_budget=1000)
    assert changed_options(options) == {"out": "out/a", "size": "64, 96", "memory_budget": "1000"}


def test_hashes_of_images_tell_pixels_order_and_shape_apart():
    one, two = np.zeros((2, 3, 3), np.uint8), np.ones((2, 3, 3), np.uint8)
    sums = [sha256_of_images(images) for images in ([one, two], [two, one], [one], [one.reshape(3, 2, 3)])]
    assert len(set(sums)) == 4 and sha256_of_images([one[:, ::-1]]) == sums[2]


def test_versions_are_those_of_the_packages_that_bring_the_modules():
    found = versions_of(["onnx", "no_such_module"])
    assert {"python", "segformer-edge", "torch", "numpy", "onnx"} <= set(found) and "no_such_module" not in found


def test_a_run_names_every_file_with_its_hash(tiny_run):
    written = Report.load(tiny_run.out / "report.json")
    made = written.reproduce
    files = {path.name for path in tiny_run.out.iterdir()} - {"report.json", "report.html"}
    assert set(made.sha256) == files
    for name, digest in made.sha256.items():
        assert hashlib.sha256((tiny_run.out / name).read_bytes()).hexdigest() == digest
    weights = hashlib.sha256((tiny_run.weights / "model.safetensors").read_bytes()).hexdigest()
    assert made.inputs["weights"] == weights and any("calibration images" in name for name in made.inputs)
    assert made.command is None and made.options["size"] == "64, 96"
    assert {"torch", "executorch", "ai-edge-litert", "openvino", "onnxruntime"} <= set(made.versions)
