"""B1 through the whole chain: post-training encodings, a few steps of training from them, and all four files."""

import json
from pathlib import Path

import cv2
import pytest
import torch

from segformer_edge.data.scenes import CLASS_NAMES, draw_scene
from segformer_edge.train import main

RECIPE = """
name = "few"
steps = 2
batch = 2
learning_rate = 1e-4
head_factor = 1.0
warmup_steps = 1
drop_path = 0.0
dropout = 0.0
workers = 0
phases = [{ until = 1.0 }]
[qat]
"""


@pytest.mark.slow
def test_b1_is_trained_and_exported_to_every_target(b1_run, run_quantize, tmp_path: Path, capsys):
    torch.set_num_threads(1)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for seed in range(6):
        image, labels = draw_scene(seed, (64, 64))
        cv2.imwrite(str(tmp_path / f"data/images/{seed}.png"), image[:, :, ::-1])
        cv2.imwrite(str(tmp_path / f"data/masks/{seed}.png"), labels)
    (tmp_path / "data/classes.txt").write_text("\n".join(CLASS_NAMES))
    (tmp_path / "few.toml").write_text(RECIPE)
    out = tmp_path / "qat"
    command = ["--qat", "--init", str(b1_run.weights), "--encodings", str(b1_run.out / "encodings.json"), "--json"]
    command += ["--data", f"folder:{tmp_path / 'data'}", "--val", "none", "--cpu", "--size", "64x64"]
    assert main([*command, "--recipe", str(tmp_path / "few.toml"), "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    run = run_quantize(out / "model.safetensors", (64, 64), encodings=out / "encodings.json", calibration=None)
    assert run.report.model == "b1"
    # Every file ran, and agreed with the quantized reference on at least 90 % of the pixels.
    assert {target.target: target.status for target in run.report.targets} == dict.fromkeys(
        ("executorch", "tflite", "openvino", "onnx"), "ok"
    )
