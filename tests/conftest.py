"""Small checkpoints and one quantization run of each kind, made once and shared by all tests. Read-only."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from quantization.encodings import apply_encodings, load_encodings
from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.processing import Preprocessing
from segformer_edge.data.scenes import CALIBRATION_SEEDS, PALETTE, VALIDATION_SEEDS, draw_scene
from segformer_edge.evaluation import TorchSegmenter
from segformer_edge.export.targets import choose_targets
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.model.config import variant_config
from segformer_edge.model.save import save_checkpoint
from segformer_edge.model.segformer import SegFormer
from segformer_edge.pipeline import QuantizeOptions, quantize
from segformer_edge.report.schema import Report, TargetReport
from segformer_edge.rewrite.graph import EdgeSegFormer

TINY_CLASSES = ("sky", "ground", "road", "water", "rest")
TINY_SIZE = (64, 96)
IMAGE_SIZE = (70, 110)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--screenshots`` is read by the tests in a browser."""
    parser.addoption("--screenshots", metavar="DIR", help="write the pictures of the docs there (make screenshots)")


@dataclass
class Run:
    """One quantization: what went in, and the folder that came out."""

    out: Path
    weights: Path
    report: Report
    options: QuantizeOptions
    #: Images that calibration did not see, uint8 RGB.
    images: list[np.ndarray] = field(default_factory=list)

    def report_of(self, target: str) -> TargetReport:
        """The target's part of the report."""
        return next(entry for entry in self.report.targets if entry.target == target)

    def file(self, target: str) -> Path:
        """The file that the target's runtime opens."""
        report = self.report_of(target)
        assert report.files, f"{target}: {report.error}"
        return self.out / report.files[0]

    @cached_property
    def encodings(self) -> dict[str, Any]:
        """What the run wrote."""
        return load_encodings(self.out / "encodings.json")

    def network(self) -> EdgeSegFormer:
        """The calibrated network, made anew from the checkpoint and the encodings file."""
        network = EdgeSegFormer(load_checkpoint(str(self.weights)).model, self.options.output)
        apply_encodings(network, self.encodings)
        return network

    @cached_property
    def quantized(self) -> TorchSegmenter:
        """The quantized reference."""
        return TorchSegmenter(self.network(), Preprocessing(self.report.size))


def scale_by_fan_in(model: nn.Module, seed: int = 11) -> None:
    """Random weights under which signals keep their size, so that the logits depend on the image."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.normal_(0, 1 / math.sqrt(module.weight[0].numel()))
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
            elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
                module.weight.uniform_(0.7, 1.3)
                module.bias.normal_(0, 0.1)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)


def save_images(folder: Path, seeds: range, suffix: str = ".png") -> None:
    """Scenes as image files; every other one is a JPEG."""
    folder.mkdir(parents=True)
    for i, seed in enumerate(seeds):
        image = draw_scene(seed, IMAGE_SIZE)[0]
        cv2.imwrite(str(folder / f"{seed}{suffix if i % 2 == 0 else '.jpg'}"), image[:, :, ::-1])


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SegFormer with one block a stage and five classes, in Hugging Face's folder layout."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        decoder_hidden_size=64,
        id2label=dict(enumerate(TINY_CLASSES)),
        label2id={name: i for i, name in enumerate(TINY_CLASSES)},
    )
    model = SegformerForSemanticSegmentation(config).eval()
    scale_by_fan_in(model)
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def calibration_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten PNG and JPEG images."""
    folder = tmp_path_factory.mktemp("images") / "calibration"
    save_images(folder, CALIBRATION_SEEDS[:10])
    return folder


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> str:
    """Four images labelled by the float model itself, as ``--eval`` takes them: its mIoU is 1, any other's less."""
    segment = TorchSegmenter(load_checkpoint(str(tiny_weights)).model, Preprocessing(TINY_SIZE))
    root = tmp_path_factory.mktemp("dataset")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for seed in VALIDATION_SEEDS[:4]:
        image = draw_scene(seed, IMAGE_SIZE)[0]
        cv2.imwrite(str(root / "images" / f"{seed}.png"), image[:, :, ::-1])
        cv2.imwrite(str(root / "masks" / f"{seed}.png"), segment(image))
    (root / "classes.txt").write_text("\n".join(TINY_CLASSES))
    return f"folder:{root}"


@pytest.fixture(scope="session")
def run_quantize(tmp_path_factory: pytest.TempPathFactory, calibration_folder: Path) -> Callable[..., Run]:
    """Calls the library as the command does: ``run_quantize(weights, size, targets="onnx", ...)``."""

    def make(weights: Path, size: tuple[int, int], targets: str = "", **more: object) -> Run:
        torch.set_num_threads(1)
        options = QuantizeOptions(
            **{  # type: ignore[arg-type]
                "out": tmp_path_factory.mktemp("run") / "out",
                "weights": str(weights),
                "size": size,
                "calibration": calibration_folder,
                "profile": False,
                "targets": choose_targets(targets.split(",")) if targets else (),
                **more,
            }
        )
        images = [draw_scene(seed, IMAGE_SIZE)[0] for seed in VALIDATION_SEEDS[10:14]]
        return Run(options.out, weights, quantize(options), options, images)

    return make


@pytest.fixture(scope="session")
def tiny_run(run_quantize: Callable[..., Run], tiny_weights: Path, tiny_dataset: str) -> Run:
    """All four targets from the tiny checkpoint, evaluated and profiled."""
    return run_quantize(tiny_weights, TINY_SIZE, dataset=open_dataset(tiny_dataset), max_drop=100.0, profile=True)


@pytest.fixture(scope="session")
def labels_run(run_quantize: Callable[..., Run], tiny_weights: Path) -> Run:
    """All four targets with the argmax inside the graph."""
    return run_quantize(tiny_weights, TINY_SIZE, output="labels")


@pytest.fixture(scope="session")
def full_run(run_quantize: Callable[..., Run], tiny_weights: Path, tiny_dataset: str) -> Run:
    """All four targets with the integer-only recipe."""
    return run_quantize(tiny_weights, TINY_SIZE, recipe="full", dataset=open_dataset(tiny_dataset), max_drop=100.0)


@pytest.fixture(scope="session")
def b1_run(run_quantize: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All four targets from a B1 with random weights, in our own checkpoint format."""
    model = SegFormer(variant_config("b1", len(PALETTE), tuple(f"class {i}" for i in range(len(PALETTE))))).eval()
    scale_by_fan_in(model)
    path = tmp_path_factory.mktemp("weights") / "b1.safetensors"
    save_checkpoint(model, path, size=(64, 64), palette=PALETTE, source="random", licence="Apache-2.0")
    return run_quantize(path, (64, 64))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Chromium without a window; a missing one fails the test, it does not skip it."""
    from selenium import webdriver

    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.fail("Chromium and its driver are not installed. Run: make test-browser")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,700",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture
def screenshots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of ``--screenshots``; without it one of this test's own, so that no committed file is written."""
    folder = Path(request.config.getoption("--screenshots") or tmp_path / "images")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
