"""On emulated CPUs themselves. ``make test-arm`` prepares them; without them these fail, they do not skip."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segformer_edge.data.metrics import agreement
from segformer_edge.emulation.architectures import AARCH64
from segformer_edge.emulation.prepare import prepare
from segformer_edge.emulation.segmenter import EmulatedSegmenter
from segformer_edge.emulation.sysroot import MANIFEST, run_python
from segformer_edge.runtime.segmenter import Segmenter

pytestmark = pytest.mark.arm
CPUS = [cpu.name for cpu in AARCH64.cpus]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("cpu", CPUS)
def test_it_is_an_arm_without_torch(cpu):
    code = """
import importlib.util, json, platform, segformer_edge.runtime.segmenter
features = open("/proc/cpuinfo").read().split("Features")[1].splitlines()[0]
print(json.dumps([platform.machine(), "asimddp" in features, importlib.util.find_spec("torch") is not None]))
"""
    done = run_python(cpu, ["-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["aarch64", cpu == "cortex-a76", False]


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_files_agree_with_the_host(target, cpu, tiny_run):
    here = Segmenter.load(tiny_run.file(target))
    with EmulatedSegmenter(tiny_run.file(target), cpu) as there:
        assert there.machine == "aarch64" and there.versions == here.runtime.versions
        shares = [agreement(there(image), here(image)) for image in tiny_run.images]
    assert np.mean(shares) >= 0.98, shares


def test_executorch_agrees_with_the_host(tiny_run):
    """An older ExecuTorch, the newest with a torch without CUDA for this CPU, runs today's files."""
    here = Segmenter.load(tiny_run.file("executorch"))
    with EmulatedSegmenter(tiny_run.file("executorch"), "cortex-a76") as there:
        assert there.machine == "aarch64" and there.versions["executorch"] == "1.1.0"
        shares = [agreement(there(image), here(image)) for image in tiny_run.images]
    assert np.mean(shares) >= 0.98, shares


def test_prepared_once(capsys):
    manifest = prepare(AARCH64).folder / MANIFEST
    before = manifest.stat().st_mtime_ns
    assert prepare(AARCH64).folder / MANIFEST == manifest and manifest.stat().st_mtime_ns == before


def test_the_comparison(tiny_run, tiny_dataset):
    """The benchmark's figures are those of the label maps."""
    command = [sys.executable, str(ROOT / "benchmarks/arm_agreement.py"), str(tiny_run.file("tflite"))]
    done = subprocess.run(
        [*command, "--data", tiny_dataset, "--images", "2", "--json"], capture_output=True, text=True, cwd=ROOT
    )
    (result,) = json.loads(done.stdout)["results"]
    assert done.returncode == (0 if result["agreement"] >= 0.995 else 1), done.stderr
    assert result["cpu"] == "cortex-a72" and len(result["per_image"]) == 2
    assert result["agreement"] == pytest.approx(np.mean(list(result["per_image"].values())))  # images of one size
    assert 0 <= result["miou_arm"] <= 1 and result["reference_agreement_arm"] is None
