"""A camera's frame through the app's own classes and the real ExecuTorch runtime gives the labels that Python gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from androidkit.build import HERE, Build, path_of
from androidkit.frames import camera_frame
from androidkit.golden import ORIENTATIONS, Vectors
from androidkit.sidecars import sidecar
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

from segformer_edge.data.scenes import draw_scene
from segformer_edge.runtime import Segmenter
from segformer_edge.runtime.metadata import sha256_of

pytestmark = pytest.mark.android

FRAME = (120, 160)
MAIN = "dev.segformeredge.demo.checks.EndToEnd"


@dataclass
class Camera:
    """Frames in a folder, and the upright pictures that they show."""

    folder: Path
    pictures: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def record(cls, folder: Path) -> Camera:
        """Eight scenes, one in each orientation, in both layouts of the chrominance."""
        rng = np.random.default_rng(7)
        camera, vectors = cls(folder), Vectors(folder)
        for i, (turns, mirrored) in enumerate(ORIENTATIONS):
            frame = camera_frame(draw_scene(400 + i, FRAME)[0], 1 + i % 2, rng)
            vectors.add("camera", frame=vectors.frame(frame), turns=turns, mirrored=mirrored, labels=f"{i}.labels")
            camera.pictures.append(frame.upright(turns, mirrored))
        (folder / "cases.json").write_text(json.dumps({"cases": vectors.cases}))
        return camera


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Camera:
    return Camera.record(tmp_path_factory.mktemp("camera"))


@pytest.fixture(scope="module")
def models(run_quantize: Callable, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Logits in int8, labels chosen in the graph, and a network of one layer in float, planes first."""
    runs = {
        "logits": run_quantize(tiny_weights, (64, 96), targets="executorch"),
        "labels": run_quantize(tiny_weights, (64, 96), targets="executorch", output="labels"),
    }
    files = {name: run.file("executorch") for name, run in runs.items()}
    return {**files, "float": float_model(tmp_path_factory.mktemp("float") / "model.pte")}


def float_model(path: Path) -> Path:
    """One convolution from an image in float32 to logits in float32, with its sidecar."""
    about = sidecar(input_dtype="float32", input_layout="nchw", output_dtype="float32")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = torch.nn.Conv2d(3, len(about.class_names), 4, stride=4).eval()
    program = torch.export.export(network, (torch.zeros(about.input.shape),))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)
    replace(about, files={path.name: sha256_of(path)}).save(path)
    return path


def segment(build: Build, model: Path, folder: Path, release: str = "new", classes: str = "app") -> str:
    """Run the end-to-end program; returns what it printed."""
    classpath = path_of(
        [build.tests, getattr(build, classes), build.tools.executorch(release), build.stand_ins,
         build.tools.kotlin_stdlib, *build.tools.junit]
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "androidkit.host", build.bridge, classpath, MAIN, model, folder],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(HERE)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("release", ["new", "old"])
@pytest.mark.parametrize("classes", ["app", "from_dex"])
@pytest.mark.parametrize("output", ["logits", "labels", "float"])
def test_same_labels_as_python(
    build: Build, models: dict[str, Path], camera: Camera, output: str, classes: str, release: str
) -> None:
    """Pixel for pixel, with two releases of ExecuTorch's Java classes, compiled and taken back from the APK."""
    printed = segment(build, models[output], camera.folder, release, classes)
    assert f"segmented {len(camera.pictures)} frames" in printed, printed
    python = Segmenter.load(models[output])
    seen = set()
    for i, picture in enumerate(camera.pictures):
        expected = python(picture)
        labels = np.fromfile(camera.folder / f"{i}.labels", np.uint8).reshape(expected.shape)
        np.testing.assert_array_equal(labels, expected)
        seen.update(np.unique(labels))
        (camera.folder / f"{i}.labels").unlink()
    assert len(seen) > 2, "one class everywhere proves nothing"


def _copy(model: Path, folder: Path) -> tuple[Path, dict]:
    """The model in a folder of its own, and its metadata."""
    copied = folder / model.name
    copied.write_bytes(model.read_bytes())
    return copied, json.loads(Path(f"{model}.json").read_text())


def _message(build: Build, model: Path, about: dict | None, camera: Camera) -> str:
    if about is not None:
        about["files"] = {model.name: sha256_of(model)}
        Path(f"{model}.json").write_text(json.dumps(about))
    printed = segment(build, model, camera.folder)
    assert "segmented" not in printed
    return printed


def test_no_sidecar_gives_a_message(build: Build, models: dict[str, Path], camera: Camera, tmp_path: Path) -> None:
    model, _ = _copy(models["labels"], tmp_path)
    assert "message: 'model.pte' has no metadata" in _message(build, model, None, camera)


def test_a_damaged_model_gives_a_message(build: Build, models: dict[str, Path], camera: Camera, tmp_path: Path) -> None:
    """With a hash that fits, so that the runtime itself must find out."""
    model, about = _copy(models["labels"], tmp_path)
    model.write_bytes(model.read_bytes()[:1000])
    assert "message: ExecuTorch cannot load 'model.pte'" in _message(build, model, about, camera)


def test_the_metadata_of_another_model_gives_a_message(
    build: Build, models: dict[str, Path], camera: Camera, tmp_path: Path
) -> None:
    model, _ = _copy(models["labels"], tmp_path)
    about = json.loads(Path(f"{models['logits']}.json").read_text())
    about["output"]["dtype"], about["output"]["scale"], about["output"]["zero_point"] = "float32", None, None
    printed = _message(build, model, about, camera)
    assert "message: 'model.pte' gave" in printed or "message: ExecuTorch failed in 'model.pte'" in printed
