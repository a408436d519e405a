"""Instructions counted on emulated CPUs. Without ``make arm-setup`` these fail, they do not skip."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from segformer_edge.emulation.plugins import plugin_emulator, prepare_plugins
from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.instructions.count import count

pytestmark = pytest.mark.arm


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_the_same_file_takes_the_same(target, tiny_run):
    first, second = (count(tiny_run.file(target), "cortex-a76") for _ in range(2))
    assert first.instructions == pytest.approx(second.instructions, rel=1e-4)
    # A 64x96 B0 multiplies some 25 million times; no kernel does more than 16 in one instruction.
    assert 2e6 < first.instructions < 2e8
    package = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}[target]
    assert first.versions == {package: version(package)} and first.cpu == "cortex-a76"


def test_dot_products_take_fewer(tiny_run):
    """Cortex-A76 has instructions for int8 dot products, Cortex-A72 has none. The same runtime on both."""
    without, having = (count(tiny_run.file("tflite"), cpu, "") for cpu in ("cortex-a72", "cortex-a76"))
    assert without.runtime == having.runtime == "LiteRT, XNNPACK"
    assert having.instructions < 0.9 * without.instructions


def test_our_runtime_s_own_choice(tiny_run):
    runtimes = {cpu: count(tiny_run.file("tflite"), cpu).runtime for cpu in ("cortex-a72", "cortex-a76")}
    assert set(runtimes.values()) == {"LiteRT CompiledModel, XNNPACK"}


def test_what_cannot_be_counted(tiny_run, tmp_path):
    with pytest.raises(UsageError, match="openvino has no runtime on the emulated cortex-a76"):
        count(tiny_run.file("openvino"), "cortex-a76")
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(tiny_run.file("onnx").read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="is not loaded: damaged: a field of"):
        count(damaged, "cortex-a76")


def test_fetched_once():
    manifest = plugin_emulator().folder / "sysroot.json"
    before = manifest.stat().st_mtime_ns
    assert prepare_plugins() == plugin_emulator() and manifest.stat().st_mtime_ns == before
