"""The network in TFLite Micro's own interpreter: its operators, its memory, and the same bits however it is tiled."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from quantization.calibration import calibrate
from quantization.encodings import apply_encodings
from quantization.recipe import Recipe, load_recipe
from quantization.sites import Mode, Site, set_mode
from segformer_edge.cli import EXIT_OVER_BUDGET
from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.metrics import agreement
from segformer_edge.errors import ArtifactError, MissingBackendError, UsageError
from segformer_edge.export.targets import TARGETS, choose_targets
from segformer_edge.export.tflite_emit import KERNELS_BUILT_IN, KERNELS_MICRO, build_graph
from segformer_edge.export.tflite_memory import arrangement
from segformer_edge.export.tflite_write import tflite_bytes
from segformer_edge.export.tflm import TFLMExporter, emitted_micro, write_smallest
from segformer_edge.memory.micro import allocations, parse_allocations
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.pipeline import exit_code
from segformer_edge.profile import main as profile
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling
from segformer_edge.runtime import tflm as runtime
from segformer_edge.runtime.segmenter import Segmenter
from segformer_edge.runtime.tflm import MicroInterpreter
from segformer_edge.worker_process import MeasurementError

SIZE = (64, 64)


@pytest.fixture(scope="module")
def run(run_quantize, tiny_weights, tiny_dataset):
    """The tiny checkpoint for TFLite Micro, labels out, scored."""
    return run_quantize(
        tiny_weights, SIZE, targets="tflm", output="labels", dataset=open_dataset(tiny_dataset), max_drop=100.0
    )


@pytest.fixture(scope="module")
def network(run):
    """The calibrated network of ``run``; tests tile copies of it."""
    made = EdgeSegFormer(load_checkpoint(str(run.weights)).model, "labels")
    apply_encodings(made, run.encodings)
    return made


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, (1, *SIZE, 3), dtype=np.int8)


def test_the_file_runs_and_says_what_it_takes(run):
    found = run.report_of("tflm")
    assert found.status == "ok" and found.ops.float == 0
    assert found.agreement_int8 > 0.95 and found.miou is not None
    recorded = allocations(run.file("tflm"))
    assert found.memory.planned_bytes == recorded.activations
    assert found.memory.peak_bytes == recorded.total == recorded.activations + recorded.persistent
    assert sum(recorded.parts.values()) == pytest.approx(recorded.persistent, rel=0.05)
    image = run.images[0]
    labels = Segmenter.load(run.file("tflm"))(image)
    assert labels.shape == image.shape[:2] and agreement(labels, run.quantized(image)) > 0.9


def test_litert_gives_the_same_labels_from_the_same_network(network, run, tmp_path):
    """An implementation of its own, with its own GELU; ties between integers are broken alike, roundings need not."""
    made = copy.deepcopy(network).take_channels_last()
    set_mode(made, Mode.EXPORT)
    with torch.no_grad():
        program = torch.export.export(made, (torch.zeros(1, *SIZE, 3),))
    content = tflite_bytes(build_graph(program, KERNELS_BUILT_IN, image_channels_last=True))
    other = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    other.allocate_tensors()
    micro, agreed = MicroInterpreter(run.file("tflm")), []
    for seed in range(4):
        other.set_tensor(other.get_input_details()[0]["index"], noise(seed))
        other.invoke()
        agreed.append(np.mean(other.get_tensor(other.get_output_details()[0]["index"]) == micro.run(noise(seed))))
    assert np.mean(agreed) > 0.95


class _Gelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.result = Site("image"), Site("result")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.result(F.gelu(self.image(x)))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(low=st.floats(-6, -0.05), high=st.floats(0.05, 6))
def test_gelu_is_litert_s_bit_for_bit(low, high, tmp_path):
    """All 256 inputs, by the table here and by LiteRT's int8 kernel."""
    net = _Gelu()
    recipe = Recipe("test", sites={"image": "int8", "result": "int8"})
    calibrate(net, [torch.linspace(low, high, 256).reshape(1, 256)], recipe)
    set_mode(net, Mode.EXPORT)
    program = torch.export.export(net, (torch.zeros(1, 256),))
    values = np.arange(-128, 128, dtype=np.int8)[None]
    path = tmp_path / "gelu.tflite"
    path.write_bytes(tflite_bytes(build_graph(program, KERNELS_MICRO)))
    other = Interpreter(model_content=tflite_bytes(build_graph(program, KERNELS_BUILT_IN)))
    other.allocate_tensors()
    other.set_tensor(other.get_input_details()[0]["index"], values)
    other.invoke()
    expected = other.get_tensor(other.get_output_details()[0]["index"])
    np.testing.assert_array_equal(MicroInterpreter(path).run(values), expected)


counts = st.tuples(*(st.integers(1, 4) for _ in range(4)))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tiling=st.builds(Tiling, counts, counts, counts, st.integers(1, 8), st.integers(1, 8), st.booleans()))
def test_tiling_changes_no_label(tiling, network, run, tmp_path):
    graph = emitted_micro(copy.deepcopy(network).tile(tiling), SIZE)
    write_smallest(graph, tmp_path / "tiled.tflite")
    tiled, whole = MicroInterpreter(tmp_path / "tiled.tflite"), MicroInterpreter(run.file("tflm"))
    for seed in range(2):
        np.testing.assert_array_equal(tiled.run(noise(seed)), whole.run(noise(seed)))


def test_the_interpreter_takes_our_plan(network, tmp_path):
    """A plan made in advance gives the arena that was planned, byte for byte, and changes no label."""
    graph = emitted_micro(copy.deepcopy(network).tile(Tiling((4, 4, 2, 2), head=8, head_channels=4)), SIZE)
    planned, offsets = arrangement(graph)
    files = [tmp_path / "own.tflite", tmp_path / "ours.tflite"]
    files[0].write_bytes(tflite_bytes(graph))
    files[1].write_bytes(tflite_bytes(replace(graph, offsets=offsets)))
    assert allocations(files[1]).activations == planned
    written = write_smallest(graph, tmp_path / "best.tflite").activations
    assert written == min(planned, allocations(files[0]).activations)
    np.testing.assert_array_equal(*(MicroInterpreter(file).run(noise(0)) for file in files))


def test_a_budget_is_of_activations(run_quantize, tiny_weights, run):
    whole = run.report_of("tflm").memory.planned_bytes
    done = run_quantize(tiny_weights, SIZE, targets="tflm", output="labels", memory_budget=whole // 2)
    found = done.report_of("tflm")
    assert found.status == "ok" and found.budget.fits and found.budget.meaning == "arena"
    assert found.budget.used == allocations(done.file("tflm")).activations <= whole // 2
    for image in run.images:
        maps = [Segmenter.load(each.file("tflm"))(image) for each in (run, done)]
        assert (maps[0] == maps[1]).mean() > 0.9  # calibrated by itself
    over = run_quantize(tiny_weights, (32, 32), targets="tflm", output="labels", memory_budget=1000)  # few tilings
    assert exit_code(over.report.targets) == EXIT_OVER_BUDGET
    assert over.report_of("tflm").budget.floor > 1000 and "blocks" in over.report_of("tflm").error


def test_logits_and_many_classes(network):
    model = load_checkpoint("demo").model
    for output, classes, dtype in (("logits", 8, "int8"), ("labels", 128, "int8"), ("labels", 129, "int16")):
        config = replace(model.config, num_classes=classes, class_names=(), depths=(1, 1, 1, 1))
        made = EdgeSegFormer(type(model)(config).eval(), output)
        calibrate(made, [torch.randn(1, 3, 32, 32)], load_recipe("full"))
        (given,) = emitted_micro(made, (32, 32)).outputs
        assert given.dtype == dtype


def test_profile_shows_both_ends_of_the_arena(run, capsys):
    assert profile([str(run.file("tflm")), "--on", "tflm", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    recorded = allocations(run.file("tflm"))
    assert [plan["bytes"] for plan in shown["plans"]] == [recorded.activations, recorded.persistent]
    assert shown["lower_bound_bytes"] <= recorded.activations <= 1.2 * shown["lower_bound_bytes"]
    assert shown["graph"]["float"] == 0 and "operator" not in " ".join(shown["graph"]["types"])


def test_what_cannot_run_there_is_said(run, run_quantize, tiny_weights, tiny_run, tmp_path, monkeypatch):
    mixed = run_quantize(tiny_weights, SIZE, targets="tflm", recipe="mixed").report_of("tflm")
    assert mixed.status == "failed" and "float" in mixed.error
    with pytest.raises(UsageError, match="TFLite Micro runs"):
        profile([str(tiny_run.file("onnx")), "--on", "tflm"])
    content = run.file("tflm").read_bytes()
    for size in (20, len(content) // 2):
        cut = tmp_path / f"cut{size}.tflite"
        cut.write_bytes(content[:size])
        with pytest.raises((ArtifactError, MeasurementError), match="cut"):
            allocations(cut)
    with pytest.raises(ArtifactError, match="TFLite Micro cannot load"):
        MicroInterpreter(tiny_run.file("tflite"))  # GELU
    monkeypatch.setattr("segformer_edge.export.targets.find_spec", lambda name: None if "micro" in name else True)
    with pytest.raises(MissingBackendError, match=r"tflite_micro(.|\n)*segformer-edge\[tflm\]"):
        choose_targets(["tflm"])
    assert TARGETS["tflm"].recipe == "full"


def test_a_small_arena_is_made_larger(run, monkeypatch):
    expected = MicroInterpreter(run.file("tflm")).run(noise(0))
    monkeypatch.setattr(runtime, "_ARENA", 1024)
    np.testing.assert_array_equal(MicroInterpreter(run.file("tflm")).run(noise(0)), expected)
    monkeypatch.setattr(runtime, "_LARGEST_ARENA", 1024)
    with pytest.raises(ArtifactError, match="TFLite Micro cannot load"):
        MicroInterpreter(run.file("tflm"))


def test_records_in_other_words_are_no_numbers():
    with pytest.raises(ArtifactError, match="do not say"):
        parse_allocations("Arena: 12 bytes", 1.0, "0", "host")


def test_the_exporter_names_its_file(network, tmp_path):
    exported = TFLMExporter().export(copy.deepcopy(network), SIZE, tmp_path / "model")
    assert exported.files == ("model_tflm.tflite",) and exported.output.dtype == "int8"
