"""Which images are calibrated on and which are held back, and the smallest real runs of the command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from segformer_edge.data.datasets import open_dataset
from segformer_edge.errors import UsageError
from segformer_edge.export.outdir import OutputFolder
from segformer_edge.pipeline import quantize
from segformer_edge.prepare import CALIBRATION_IMAGES, HELD_BACK, QuantizeOptions, calibration_images
from segformer_edge.progress import Progress


@pytest.mark.parametrize(
    ("there", "calibrated", "held"),
    [(1, 1, 1), (2, 1, 1), (4, 3, 1), (5, 4, 1), (10, 8, 2), (20, 16, 4), (100, CALIBRATION_IMAGES, HELD_BACK)],
)
def test_a_fifth_of_the_images_is_held_back_at_most(tmp_path, capsys, there, calibrated, held):
    for i in range(there):
        cv2.imwrite(str(tmp_path / f"{i:03}.png"), np.full((8, 8, 3), i, np.uint8))
    options = QuantizeOptions(tmp_path / "out", weights="mine", calibration=tmp_path)
    groups = calibration_images(options, (64, 64), Progress())
    first, second = ([int(image[0, 0, 0]) for image in images] for images in groups)
    assert (len(first), len(second)) == (calibrated, held)
    assert bool(set(first) & set(second)) == (there == 1)
    assert ("steadier ranges" in capsys.readouterr().err) == (there < 5)


def test_one_calibration_image_is_enough_but_warned_about(
    run_quantize, tiny_weights, calibration_folder, tmp_path, capfd
):
    image = next(calibration_folder.iterdir())
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / image.name).write_bytes(image.read_bytes())
    found = run_quantize(tiny_weights, (64, 96), targets="onnx", calibration=tmp_path / "one")
    assert found.report_of("onnx").status == "ok"
    assert "warning: only 1 calibration image" in capfd.readouterr().err


def test_the_demo_needs_no_options_and_json_is_all_there_is_on_stdout(tmp_path):
    command = [sys.executable, "-m", "segformer_edge.quantize", "--weights", "demo", "--size", "64"]
    done = subprocess.run(
        [*command, "--targets", "onnx", "--max-drop", "100", "--json", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["reference"]["dataset"] == "demo" and report["weights"] == "demo" and report["model"] == "b0"
    assert report["targets"][0]["status"] == "ok" and done.stderr == ""


def test_a_disk_with_less_than_needed_counts_as_full(tmp_path):
    with OutputFolder(tmp_path / "out") as folder:
        assert not folder.out_of_space()
        assert folder.out_of_space(needed=1 << 62)


def test_files_are_held_against_the_reference_weights(run_quantize, tiny_weights, tiny_dataset, tmp_path):
    """As after quantization-aware training: other weights are exported than those they are compared to."""
    other = tmp_path / "other"
    shutil.copytree(tiny_weights, other)
    tensors = load_file(other / "model.safetensors")
    tensors["decode_head.classifier.bias"][2] += 0.5
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    options = {"targets": "onnx", "dataset": open_dataset(tiny_dataset), "max_drop": 100.0}
    against_itself = run_quantize(other, (64, 96), **options).report
    against_start = run_quantize(other, (64, 96), reference=str(tiny_weights), **options).report
    assert against_start.targets[0].miou == against_itself.targets[0].miou
    assert against_start.reference.fp32_miou == 1.0 > against_itself.reference.fp32_miou
    assert against_start.reference.weights == str(tiny_weights)


def test_reference_weights_of_other_classes_are_refused(tiny_weights, calibration_folder, tmp_path):
    options = QuantizeOptions(
        tmp_path / "out", str(tiny_weights), reference="demo", size=(64, 96), calibration=calibration_folder
    )
    with pytest.raises(UsageError, match="8 classes"):
        quantize(options)
    assert not (tmp_path / "out").exists()
