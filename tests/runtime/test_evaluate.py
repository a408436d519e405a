"""Scoring: the protocol against torch's own interpolation and argmax, and the command on files and bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segformer_edge.cli import run
from segformer_edge.data.metrics import ConfusionMatrix
from segformer_edge.data.processing import Preprocessing
from segformer_edge.data.sample import Sample, SegmentationDataset
from segformer_edge.errors import DataError, UsageError
from segformer_edge.evaluate import main
from segformer_edge.evaluation import LabelMaps, TorchSegmenter, check_classes, evaluate, summarise_latency

NAMES = ("sky", "road", "tree", "car")


class Squares(SegmentationDataset):
    """Noise, whose labels are given."""

    def __init__(self, count: int = 5, names: tuple[str, ...] = NAMES, size: tuple[int, int] = (40, 52)) -> None:
        super().__init__("squares", names, [(0, 0, 0)] * len(names))
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        labels = rng.integers(0, self.num_classes - 1, self.size).astype(np.uint8)  # the last class never appears
        labels[:4] = 255
        return Sample(rng.integers(0, 256, (*self.size, 3), dtype=np.uint8), labels, f"image-{index}")


def right(dataset: Squares):
    """A predictor that knows the answers, in order."""
    answers = iter(range(len(dataset)))

    def predict(image: np.ndarray) -> np.ndarray:
        labels = dataset[next(answers)].labels.copy()
        labels[labels == 255] = 0
        return labels

    return predict


def test_a_perfect_predictor_scores_one():
    dataset = Squares()
    result = evaluate(right(dataset), dataset)
    assert result.miou == 1 and result.pixel_accuracy == 1 and result.images == 5
    assert result.per_class_iou == (1.0, 1.0, 1.0, None)  # absent: no figure, and not a zero
    assert len(result.predict_ms) == 5 and result.seconds > 0 and result.predictions is None


def test_scores_are_those_of_the_plain_protocol(net):
    """Preprocess, network, full upsample in torch, argmax, one matrix."""
    dataset, preprocessing = Squares(), Preprocessing((32, 64))
    matrix = ConfusionMatrix(4)
    for sample in dataset:
        with torch.no_grad():
            logits = net(torch.from_numpy(preprocessing(sample.image)))
        full = F.interpolate(logits, size=sample.labels.shape, mode="bilinear", align_corners=False)
        matrix.update(sample.labels, full[0].argmax(0).numpy())
    result = evaluate(TorchSegmenter(net, preprocessing), dataset)
    assert result.miou == pytest.approx(matrix.miou, abs=5e-4)
    assert result.pixel_accuracy == pytest.approx(matrix.pixel_accuracy, abs=5e-4)


def test_agreement_counts_equal_pixels_of_every_image():
    dataset = Squares(count=4)
    reference = evaluate(right(dataset), dataset, keep_predictions=True).predictions
    assert reference is not None and len(reference) == 4

    def half(image: np.ndarray) -> np.ndarray:
        labels = next(answers).copy()
        labels[:, :26] = 3  # a class the reference never gives
        return labels

    answers = iter(reference)
    result = evaluate(half, dataset, compare={"fp32": reference})
    assert result.agreement == {"fp32": 0.5}
    assert evaluate(right(dataset), dataset, limit=2, compare={"a": reference}).agreement == {"a": 1.0}
    with pytest.raises(ValueError, match="0 label maps"):
        evaluate(right(dataset), dataset, compare={"a": LabelMaps()})


def test_label_maps_come_back_as_they_were():
    maps, rng = LabelMaps(), np.random.default_rng(0)
    originals = [rng.integers(0, 256, (3 + i, 7), dtype=np.uint8) for i in range(4)]
    for labels in originals:
        maps.append(labels.T)
    for i, labels in enumerate(originals):
        np.testing.assert_array_equal(maps[i], labels.T)
    assert len(maps[1:3]) == 2
    with pytest.raises(IndexError):
        maps[4]


def test_bad_data_is_refused(net):
    with pytest.raises(UsageError, match="at least 1"):
        evaluate(right(Squares()), Squares(), limit=0)
    with pytest.raises(DataError, match="no images"):
        evaluate(right(Squares()), Squares(count=0))
    with pytest.raises(DataError, match="image-0"):
        evaluate(lambda image: np.zeros((3, 3), np.uint8), Squares())


def test_classes_must_match():
    check_classes("file", NAMES, Squares())
    check_classes("file", ("a", "b", "c", "d"), Squares())  # names may differ, numbers may not
    with pytest.raises(UsageError, match=r"has 3 classes \(sky, road, tree\)"):
        check_classes("file", NAMES[:3], Squares())
    with pytest.raises(UsageError, match="number the same classes differently"):
        check_classes("file", NAMES[::-1], Squares())


def test_latency_is_summarised():
    latency = summarise_latency([3.0, 1.0, 2.0], threads=2)
    assert (latency.median, latency.min, latency.threads, latency.runs) == (2.0, 1.0, 2, 3)
    assert latency.device.startswith("host ")


@pytest.fixture(scope="module")
def folder_dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The squares as files: images/, masks/ and their classes."""
    root = tmp_path_factory.mktemp("squares")
    for name in ("images", "masks"):
        (root / name).mkdir()
    for sample in Squares(count=3):
        cv2.imwrite(str(root / "images" / f"{sample.name}.png"), sample.image[..., ::-1])
        cv2.imwrite(str(root / "masks" / f"{sample.name}.png"), sample.labels)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return f"folder:{root}"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "segformer_edge.evaluate", *arguments],
        capture_output=True, text=True, timeout=120, env=environment, cwd=Path(__file__).parents[2],
    )  # fmt: skip


@pytest.mark.parametrize("form", ["executorch", "tflite", "openvino", "onnx"])
def test_json_is_all_there_is_on_stdout(form, artifacts, folder_dataset):
    done = command(str(artifacts[form]), "--data", folder_dataset, "--json", "--limit", "2")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["schema_version"] == 1 and value["format"] == form and value["images"] == 2
    assert value["size"] == [32, 64] and list(value["per_class_iou"]) == list(NAMES)
    assert 0 <= value["miou"] <= 1 and value["latency_ms"]["median"] > 0 and value["tools"]


def test_the_table_names_every_class(artifacts, folder_dataset):
    done = command(str(artifacts["onnx"]), "--data", folder_dataset)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where nobody looks
    for word in (*NAMES, "mIoU", "pixel accuracy", "3 images", "onnxruntime"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{onnx}"], 2, "--data"),
        (["{onnx}", "--data", "demo"], 2, "classes"),
        (["{onnx}", "--data", "{squares}", "--size", "64"], 2, "was exported for 32x64"),
        (["{onnx}", "--data", "{squares}", "--size", "33"], 2, "Try: --size 32"),
        (["{onnx}", "--data", "{squares}", "--limit", "0"], 2, "at least 1"),
        (["{onnx}", "--data", "{squares}", "--limit", "x"], 2, "invalid int"),
        (["{onnx}", "--data", "{squares}", "--threads", "0"], 2, "--threads"),
        (["{onnx}", "--data", "nonsense:x"], 2, "Unknown data set"),
        (["{onnx}", "--dta", "x", "--data", "{squares}"], 2, "Did you mean '--data'"),
        (["/nowhere/model.onnx", "--data", "{squares}"], 2, "no file"),
        (["/nowhere/model.bin", "--data", "{squares}"], 2, "Name the .xml"),
        (["/nowhere/weights.pth", "--data", "{squares}"], 2, "weights.pth"),
    ],
)
def test_bad_input_is_one_message(arguments, code, words, artifacts, folder_dataset, capsys):
    filled = [each.format(onnx=artifacts["onnx"], squares=folder_dataset) for each in arguments]
    assert run(main, filled) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and words in captured.err


def test_a_folder_of_exported_files_is_told_with_their_names(artifacts, folder_dataset, capsys):
    folder = artifacts["onnx"].parent
    assert run(main, [str(folder), "--data", folder_dataset]) == 2
    error = capsys.readouterr().err
    assert "is a folder of exported files" in error and str(artifacts["onnx"]) in error


def test_the_command_after_a_checkpoint_keeps_the_size_and_asks_for_images(tiny_weights, tiny_dataset, capsys):
    assert run(main, [str(tiny_weights), "--data", tiny_dataset, "--size", "64", "--limit", "1"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("next: ") and line.endswith("# with a folder of your images for DIR")
    for words in (
        f"--weights {tiny_weights}",
        "--size 64",
        "--calibration DIR",
        f"--eval {tiny_dataset}",
        "--out out/",
    ):
        assert words in line
