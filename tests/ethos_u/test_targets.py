"""Every configuration, from a checkpoint to its files: whole on the NPU, and the same answers as the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from executorch.exir._serialize._program import deserialize_pte_binary

from segformer_edge.errors import ArtifactError, MissingBackendError, UsageError
from segformer_edge.ethos_u import vela
from segformer_edge.ethos_u.configurations import CONFIGURATIONS, MemoryMode, NpuConfig, configuration
from segformer_edge.ethos_u.lowering import npu_graph
from segformer_edge.ethos_u.program import BACKEND
from segformer_edge.ethos_u.tables import tables_of
from segformer_edge.pipeline import exit_code
from segformer_edge.report.npu import npu_from_json
from segformer_edge.report.schema import Report
from segformer_edge.runtime import Segmenter
from segformer_edge.runtime.metadata import ArtifactMetadata

from .conftest import SIZE

NAMES = tuple(CONFIGURATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_is_on_the_npu(npu_run, name):
    report = npu_run.report_of(name)
    assert report.status == "ok" and report.error is None
    assert report.npu.left == () and report.npu.on_npu == report.npu.operators > 100
    assert report.ops.float == 0 and report.ops.delegated == report.ops.total and report.ops.fallback == ()


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_say_what_they_are(npu_run, name):
    report, config = npu_run.report_of(name), CONFIGURATIONS[name]
    assert [mode.mode for mode in report.npu.modes] == [mode.name for mode in config.modes]
    chosen = next(mode for mode in report.npu.modes if mode.mode == config.default)
    assert report.memory.planned_bytes == chosen.sram_bytes > 64 * 64 * 3
    assert all(mode.cycles > 0 and mode.inferences_per_second > 0 for mode in report.npu.modes)
    assert report.memory.kind.startswith("planned by the compiler") and report.memory.device == name
    assert report.memory.peak_bytes is None and report.latency_ms is None
    assert (report.npu.memory, report.npu.speed) == ("planned by the compiler", "compiler's estimate")


def test_the_report_survives_json(npu_run):
    assert Report.load(npu_run.out / "report.json").targets == npu_run.report.targets


def test_a_mode_that_is_refused_is_named(npu_run):
    """As Vela refuses 512x512 in a cache of 512 KiB; only the default mode must compile."""
    config, report = configuration("ethos-u85-256"), npu_run.report_of("ethos-u85-256").npu

    def compile_but(refused: str) -> Callable[[MemoryMode], vela.Compiled]:
        def compile_in(mode: MemoryMode) -> vela.Compiled:
            if mode.name == refused:
                raise ArtifactError("Failed to allocate tensors")
            found = next(each for each in report.modes if each.mode == mode.name)
            return vela.Compiled(**asdict(found), left=(), steps=(), content=b"")

        return compile_in

    made, refused = vela.in_every_mode(config, compile_but("Dedicated_Sram"))
    assert [each.figures() for each in made] == list(report.modes[:2])
    told = replace(report, modes=report.modes[:2], refused=refused)
    assert "Not made for Dedicated_Sram: Failed to allocate tensors" in told.verdict()
    assert npu_from_json(json.loads(json.dumps(asdict(told)))) == told
    with pytest.raises(ArtifactError, match="Failed to allocate"):
        vela.in_every_mode(config, compile_but(config.default))


@pytest.mark.parametrize("name", NAMES)
def test_the_host_file_gives_the_references_answers(npu_run, name):
    """Logits, since labels of random weights hang on near ties; the share is of how much the logits vary."""
    report = npu_run.report_of(name)
    assert report.agreement_int8 > 0.95
    segmenter = Segmenter.load(npu_run.out / report.npu.host_file)
    for image in npu_run.images:
        reference = npu_run.quantized.logits(image)
        assert np.sqrt(np.mean((segmenter.logits(image) - reference) ** 2)) / reference.std() < 0.08


@pytest.mark.parametrize("name", NAMES)
def test_the_program_is_one_call(npu_run, name):
    content = npu_run.file(name).read_bytes()
    plan = deserialize_pte_binary(content).program.execution_plan[0]
    assert [delegate.id for delegate in plan.delegates] == [BACKEND] and not plan.operators
    (chain,) = plan.chains
    assert [type(each.instr_args).__name__ for each in chain.instructions] == ["DelegateCall"]
    taken, given = (plan.values[i].val for i in (*plan.inputs, *plan.outputs))
    assert list(taken.sizes) == [1, *SIZE, 3] and list(given.sizes) == [1, 16, 16, 5]
    assert b"vela_bin_stream\0" in content and b"vela_end_stream\0" in content


@pytest.fixture(scope="module")
def gelu_tables(calibrated):
    """GELU's tables by those that stand for them: one block a stage."""
    tables = tables_of(npu_graph(calibrated(), SIZE, configuration("ethos-u85-256"))).wanted
    assert len(tables) == 4
    return tables


@pytest.mark.parametrize("name", NAMES)
def test_the_compiled_files_hold_gelus_table(npu_run, gelu_tables, name):
    for file in (npu_run.file(name), npu_run.out / f"model.{name}.tflite"):
        content = file.read_bytes()
        assert all(table in content for table in gelu_tables.values())
        assert not any(placeholder in content for placeholder in gelu_tables)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_has_a_sidecar_of_its_own(npu_run, name):
    report = npu_run.report_of(name)
    assert sorted(report.files) == sorted(
        f"model.{name}{suffix}{end}" for suffix in (".pte", ".tflite", ".host.tflite") for end in ("", ".json")
    )
    for suffix in (".pte", ".tflite", ".host.tflite"):
        metadata = ArtifactMetadata.load(npu_run.out / f"model.{name}{suffix}")
        assert metadata.input.dtype == "int8" and metadata.recipe == "npu"
        assert metadata.target == name + ("-host" if "host" in suffix else "")


def test_a_compiled_file_does_not_run_here(npu_run):
    for suffix in (".pte", ".tflite"):
        with pytest.raises(UsageError, match="only that NPU runs") as error:
            Segmenter.load(npu_run.out / f"model.ethos-u85-256{suffix}")
        assert str(npu_run.out / "model.ethos-u85-256.host.tflite") in error.value.hint


def test_what_is_left_to_the_cpu_is_named(run_quantize, tiny_weights):
    """Recipe full multiplies int16 activations, which an Ethos-U55 cannot."""
    run = run_quantize(tiny_weights, SIZE, targets="ethos-u55-128", recipe="full", output="labels")
    report = run.report_of("ethos-u55-128")
    assert report.status == "ok" and {left.operator for left in report.npu.left} == {"BATCH_MATMUL"}
    assert report.npu.on_npu == report.npu.operators - 4 and len(report.ops.fallback) == 4
    assert all("IFM type" in left.reason for left in report.npu.left)
    assert "4 left to the CPU: BATCH_MATMUL" in report.npu.verdict()
    assert report.files[0] == "model.ethos-u55-128.tflite" and not list(run.out.glob("*.pte"))


def test_a_budget_is_met_by_tiling_or_refused(run_quantize, npu_run, tiny_weights):
    untiled = npu_run.report_of("ethos-u85-256").memory.planned_bytes
    more = {"targets": "ethos-u85-256", "encodings": npu_run.out / "encodings.json", "output": "labels"}
    met = run_quantize(tiny_weights, SIZE, memory_budget=int(untiled * 0.6), **more)
    report = met.report_of("ethos-u85-256")
    assert report.status == "ok" and report.budget.fits and report.budget.meaning == "sram"
    assert max(report.budget.tiling["bands"]) > 1 or report.budget.tiling["head"] > 1
    assert report.npu.left == ()
    failed = run_quantize(tiny_weights, (32, 32), memory_budget=8_000, **more)  # few tilings to try
    report = failed.report_of("ethos-u85-256")
    assert report.status == "over_budget" and exit_code(failed.report.targets) == 3
    assert report.budget.floor == report.budget.used == report.memory.planned_bytes > 8_000
    assert report.budget.blocked_by and report.error.startswith("FAIL")


def test_float_recipes_are_refused_with_the_one_to_use(run_quantize, tiny_weights):
    run = run_quantize(tiny_weights, (32, 32), targets="ethos-u85-256", recipe="mixed")
    report = run.report_of("ethos-u85-256")
    assert report.status == "failed" and "--recipe npu" in report.error


def test_a_missing_compiler_is_said_with_the_command(monkeypatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(vela, "version", missing)
    with pytest.raises(MissingBackendError, match="Vela") as error:
        vela.vela_version()
    assert error.value.hint == "pip install 'segformer-edge[ethos-u]'"


def test_configurations_are_checked():
    mode = MemoryMode("Sram_Only", "Sram_Only", "system")
    with pytest.raises(ValueError, match="default"):
        NpuConfig("npu", 128, (mode,), "Shared_Sram")
    with pytest.raises(UsageError, match="no memory mode 'Sram_Olny'") as error:
        configuration("ethos-u85-256").mode("Sram_Olny")
    assert "Sram_Only" in error.value.hint


def test_the_compilers_complaint_is_the_error():
    config = configuration("ethos-u55-128")
    with pytest.raises(ArtifactError, match=r"graph for ethos-u55-128 in Shared_Sram \(exit code"):
        vela.compile_graph(b"TFL3 no graph", config, config.mode())


def test_json_has_the_npu(npu_run):
    report = json.loads((npu_run.out / "report.json").read_text())
    npu = report["targets"][0]["npu"]
    assert npu["config"] == "ethos-u55-128" and npu["modes"][0]["mode"] == "Sram_Only"
