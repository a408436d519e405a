"""What ``python -m segformer_edge.quantize`` answers to wrong input: a message, exit code 2 and nothing on the disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segformer_edge.cli import run
from segformer_edge.quantize import main

#: Options -> (exit code, stderr).
Refuse = Callable[..., str]


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs the command, expects a refusal with exit code 2 and nothing written, and gives the message."""

    def check(*options: object) -> str:
        parent = tmp_path / "results"
        parent.mkdir(exist_ok=True)
        before = sorted(parent.rglob("*"))
        arguments = [str(option) for option in options]
        if "--out" not in arguments:
            arguments += ["--out", str(parent / "out")]
        code = run(main, arguments)
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert captured.err.count("error:") == 1 and "Traceback" not in captured.err and captured.out == ""
        assert sorted(parent.rglob("*")) == before
        return captured.err

    return check


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "500"], ["500x500", "divisible by 32", "--size 512"]),
        (["--size", "384x500"], ["384x500", "--size 384x512"]),
        (["--targets", "tflight,onnx"], ["'tflight'", "Did you mean 'tflite'"]),
        (["--targets", ","], ["No target"]),
        (["--recipe", "mixt"], ["'mixt'", "Did you mean 'mixed'"]),
        (["--max-drop", "nan"], ["--max-drop", "nan"]),
        (["--max-drop", "-1"], ["--max-drop", "-1"]),
        (["--eval", "coco:somewhere"], ["coco"]),
        (["--eval", "folder:/no/such/folder"], ["/no/such/folder"]),
        (["--weights", "/no/such/weights"], ["/no/such/weights"]),
        (["--model", "b7"], ["b7"]),
        (["--calibation", "x"], ["Did you mean '--calibration'"]),
    ],
)
def test_options_are_explained(refuse, options, words):
    message = refuse(*options)
    assert all(word in message for word in words), message


def test_missing_and_empty_calibration_folders(refuse, tiny_weights, tmp_path):
    (tmp_path / "calibration").mkdir()
    message = refuse("--weights", tiny_weights, "--size", 64, "--calibration", tmp_path / "calibrate")
    assert f"no folder {tmp_path / 'calibrate'}" in message and f"mean {tmp_path / 'calibration'}" in message
    message = refuse("--weights", tiny_weights, "--size", 64, "--calibration", tmp_path / "calibration")
    assert f"no image in {tmp_path / 'calibration'}" in message


def test_own_weights_need_images(refuse, tiny_weights):
    assert "--calibration DIR" in refuse("--weights", tiny_weights, "--size", 64)


def test_a_text_file_among_the_images(refuse, tiny_weights, calibration_folder, tmp_path):
    folder = shutil.copytree(calibration_folder, tmp_path / "images")
    (folder / "notes.jpg").write_text("These are the pictures of Tuesday.")
    message = refuse("--weights", tiny_weights, "--size", 64, "--calibration", folder)
    assert str(folder / "notes.jpg") in message and "text file" in message


def test_truncated_safetensors(refuse, tiny_weights, calibration_folder, tmp_path):
    folder = shutil.copytree(tiny_weights, tmp_path / "weights")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert str(file) in refuse("--weights", folder, "--calibration", calibration_folder)


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickle_with_code_is_refused_and_not_run(refuse, tmp_path):
    torch.save({"state_dict": {"weight": Payload(tmp_path / "executed")}}, tmp_path / "weights.pth")
    assert "weights.pth" in refuse("--weights", tmp_path / "weights.pth")
    assert not (tmp_path / "executed").exists()


def test_weights_that_are_not_a_number(refuse, tiny_weights, calibration_folder, tmp_path):
    folder = shutil.copytree(tiny_weights, tmp_path / "weights")
    tensors = load_file(folder / "model.safetensors")
    tensors["decode_head.classifier.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "decode_head.classifier.weight" in refuse("--weights", folder, "--calibration", calibration_folder)


def test_another_number_of_classes_than_the_data_set(refuse, tiny_weights, calibration_folder):
    message = refuse("--weights", tiny_weights, "--calibration", calibration_folder, "--eval", "demo")
    assert "5 classes" in message and "8" in message


def test_another_variant_than_asked_for(refuse, tiny_weights, calibration_folder):
    assert "b1" in refuse("--weights", tiny_weights, "--calibration", calibration_folder, "--model", "b1")


def test_a_native_size_that_does_not_work_is_rounded(refuse, tiny_weights, calibration_folder, tmp_path):
    folder = shutil.copytree(tiny_weights, tmp_path / "weights")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 500, "width": 500}}))
    message = refuse("--weights", folder, "--calibration", calibration_folder)
    assert "500x500" in message and "--size 512" in message


def test_an_output_folder_with_content(refuse, tmp_path):
    out = tmp_path / "results" / "full"
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("years of work")
    message = refuse("--out", out)
    assert str(out) in message and "thesis.txt" in message and "--force" in message


def test_an_output_folder_that_is_a_file(refuse, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "out").write_text("a file")
    assert "is a file" in refuse()


def test_encodings_of_another_model(refuse, tiny_run, tiny_weights, calibration_folder, tmp_path):
    folder = shutil.copytree(tiny_weights, tmp_path / "weights")
    tensors = load_file(folder / "model.safetensors")
    tensors["decode_head.classifier.weight"] *= 1.5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    encodings = tiny_run.out / "encodings.json"
    message = refuse("--weights", folder, "--size", 64, "--calibration", calibration_folder, "--encodings", encodings)
    assert "other weights" in message


def test_encodings_that_cannot_be_read(refuse, tiny_weights, calibration_folder, tmp_path):
    (tmp_path / "encodings.json").write_text("{")
    options = ["--weights", tiny_weights, "--size", 64, "--calibration", calibration_folder, "--encodings"]
    assert "is not an encodings file" in refuse(*options, tmp_path / "encodings.json")
    assert "none.json" in refuse(*options, tmp_path / "none.json")
    assert "leave out --recipe" in refuse(*options, tmp_path / "encodings.json", "--recipe", "mixed")


def test_a_recipe_for_another_network(refuse, tiny_weights, calibration_folder, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[weights]\nconvolution = "int8"\n')
    options = ["--weights", tiny_weights, "--size", 64, "--calibration", calibration_folder, "--recipe"]
    assert "'convolution'" in refuse(*options, recipe)
    recipe.write_text("[weights\n")
    assert str(recipe) in refuse(*options, recipe)


def test_the_process_ends_with_the_same_code_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "segformer_edge.quantize", "--size", "100", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and done.stdout == "" and list(tmp_path.iterdir()) == []
    assert done.stderr == (
        "error: Size 100x100 does not work: SegFormer needs sides divisible by 32.\n  Try: --size 96\n"
    )
