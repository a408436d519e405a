"""Every file of a run does in its own runtime what the quantized reference does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segformer_edge.data.metrics import agreement
from segformer_edge.data.processing import Preprocessing
from segformer_edge.errors import ArtifactError
from segformer_edge.evaluation import TorchSegmenter
from segformer_edge.export.onnx import adapt
from segformer_edge.export.targets import CPU_TARGETS, TARGETS
from segformer_edge.report.schema import Report
from segformer_edge.rewrite.cache_blocks import cache_blocks
from segformer_edge.runtime.metadata import ArtifactMetadata, sha256_of
from segformer_edge.runtime.segmenter import Segmenter

ROOT = Path(__file__).parents[2]
REPORT_FIELDS = [
    "target", "status", "error", "files", "bytes", "miou", "miou_drop", "agreement_fp32", "agreement_int8",
    "latency_ms", "memory", "ops", "per_class_iou", "budget", "export_seconds", "npu",
    "agreement_checked", "profile",
]  # fmt: skip
#: With random weights many pixels are near a tie, which a runtime's bfloat16 (OpenVINO, where the CPU has it) decides.
AGREEMENT = 0.92
RUNS = ("tiny_run", "labels_run", "b1_run")


@pytest.fixture(params=RUNS)
def quantized_run(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_every_target_is_ok(quantized_run, target):
    report = quantized_run.report_of(target)
    assert report.status == "ok" and report.error is None
    assert report.agreement_int8 > AGREEMENT and report.agreement_fp32 > 0.8
    assert report.bytes == sum((quantized_run.out / name).stat().st_size for name in report.files[:-1])
    assert report.latency_ms.runs == 10 and report.latency_ms.threads == 1


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_label_maps_are_those_of_the_quantized_reference(quantized_run, target):
    segment = Segmenter.load(quantized_run.file(target))
    maps = [segment(image) for image in quantized_run.images]
    assert all(labels.shape == image.shape[:2] for labels, image in zip(maps, quantized_run.images, strict=True))
    expected = [quantized_run.quantized(image) for image in quantized_run.images]
    assert len(np.unique(expected)) > 2  # the network says something
    assert np.mean([agreement(a, b) for a, b in zip(maps, expected, strict=True)]) > AGREEMENT


def difference(logits: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square, in standard deviations of what is expected."""
    return float(np.sqrt(np.mean((logits - expected) ** 2)) / expected.std())


@pytest.mark.parametrize("name", ["tiny_run", "b1_run"])
@pytest.mark.parametrize("target", ["executorch", "tflite", "openvino"])
def test_logits_are_those_of_the_quantized_reference(request, name, target):
    found = request.getfixturevalue(name)
    segment = Segmenter.load(found.file(target))
    for image in found.images:
        error = difference(segment.logits(image), found.quantized.logits(image))
        assert error < (0.25 if target == "openvino" else 0.15)


@pytest.mark.parametrize("name", ["tiny_run", "b1_run"])
def test_onnx_logits_are_those_of_the_reference_with_its_own_rounding(request, name):
    """Widened weight scales, 7 bits of a key and shared ranges are more than half of what the file differs by."""
    found = request.getfixturevalue(name)
    segment, network = Segmenter.load(found.file("onnx")), found.network()
    network.tile(cache_blocks(network.config, found.report.size, TARGETS["onnx"].cache_blocks))
    adapt(network)
    own = TorchSegmenter(network, Preprocessing(found.report.size))
    for image in found.images:
        expected = own.logits(image)
        assert difference(segment.logits(image), expected) < 0.1
        assert difference(expected, found.quantized.logits(image)) < 0.15


def test_a_file_of_labels_has_no_logits(labels_run):
    segment = Segmenter.load(labels_run.file("onnx"))
    with pytest.raises(ArtifactError, match="gives labels"):
        segment.logits(labels_run.images[0])


def test_the_folder_holds_what_the_report_says(quantized_run):
    listed = [name for target in quantized_run.report.targets for name in target.files]
    others = ["encodings.json", "report.html", "report.json"]
    assert sorted(path.name for path in quantized_run.out.iterdir()) == sorted([*listed, *others])
    assert [path.name for path in quantized_run.out.parent.iterdir()] == ["out"]
    assert Report.load(quantized_run.out / "report.json") == quantized_run.report


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_sidecars_say_what_is_there(tiny_run, target):
    metadata = ArtifactMetadata.load(tiny_run.file(target))
    assert metadata.files == {name: sha256_of(tiny_run.out / name) for name in tiny_run.report_of(target).files[:-1]}
    assert metadata.encodings_sha256 == sha256_of(tiny_run.out / "encodings.json")
    assert metadata.size == (64, 96) and metadata.recipe == "mixed" and metadata.target == target
    assert metadata.class_names == ("sky", "ground", "road", "water", "rest")
    assert "non-commercial" in metadata.weights.licence and len(metadata.weights.sha256) == 64
    assert {"segformer-edge", "torch"} <= set(metadata.tools)


def test_the_report_has_the_documented_fields(tiny_run):
    report = json.loads((tiny_run.out / "report.json").read_text())
    assert list(report) == [
        *("schema_version", "model", "weights", "size", "output", "seconds", "reference", "targets", "precision"),
        *("gates", "reproduce"),
    ]
    assert report["schema_version"] == 1 and report["size"] == [64, 96]
    assert list(report["reference"]) == [
        *("fp32_miou", "int8_reference_miou", "images", "dataset"),
        *("fp32_per_class_iou", "int8_reference_per_class_iou", "weights"),
    ]
    assert report["reference"]["weights"] == report["weights"]
    assert report["reference"]["fp32_miou"] == 1.0 and report["reference"]["images"] == 4
    for target in report["targets"]:
        assert list(target) == REPORT_FIELDS
        assert target["miou_drop"] == pytest.approx(1.0 - target["miou"])
        assert set(target["latency_ms"]) == {"median", "min", "threads", "runs", "device"}
        assert set(target["ops"]) == {"total", "int8", "float", "delegated", "fallback"}


def test_two_runs_calibrate_alike(tiny_run, labels_run):
    first, second = ((found.out / "encodings.json").read_bytes() for found in (tiny_run, labels_run))
    assert first == second


def test_encodings_spare_the_calibration_and_give_the_same_file(tiny_run, run_quantize, capfd):
    again = run_quantize(
        tiny_run.weights, (64, 96), targets="onnx", calibration=None, encodings=tiny_run.out / "encodings.json"
    )
    assert "demo scenes are used" in capfd.readouterr().err
    for name in ("encodings.json", "model.onnx"):
        assert (again.out / name).read_bytes() == (tiny_run.out / name).read_bytes(), name


def test_devices_without_torch_run_the_files(tiny_run):
    code = """
import json, sys
import numpy as np
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "safetensors", "litert_torch", "nncf"):
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
from segformer_edge.runtime.segmenter import Segmenter
image = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
print(json.dumps([np.bincount(Segmenter.load(path)(image).ravel()).tolist() for path in sys.argv[1:]]))
"""
    paths = [tiny_run.file(target) for target in ("tflite", "openvino", "onnx")]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    image = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
    expected = [np.bincount(Segmenter.load(path)(image).ravel()).tolist() for path in paths]
    assert json.loads(done.stdout.splitlines()[-1]) == expected
