"""``profile --operators``: four runtimes' profilers on real files, the JSON, the table, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import onnx
import pytest

from segformer_edge.cli import EXIT_OK, EXIT_USAGE, run
from segformer_edge.errors import UsageError
from segformer_edge.export.targets import CPU_TARGETS
from segformer_edge.profile import main
from segformer_edge.runtime import litert_api
from segformer_edge.timing.operators import Event, OperatorProfile, OperatorTime, medians
from segformer_edge.timing.profilers import tflite as profiler
from segformer_edge.timing.profiling import profile_operators
from segformer_edge.timing.worker import PROFILERS

TARGETS = CPU_TARGETS
#: What a field's absence would break for a reader of --json.
FIELDS = {
    "schema_version", "file", "format", "runtime", "versions", "device", "threads", "runs", "inference_ms", "plain_ms",
    "attributed_ms", "unattributed_ms", "totals", "operators", "notes",
}  # fmt: skip
#: Types of the convolutions that a SegFormer's INT8 file must have.
CONVOLUTIONS = {
    "tflite": "CONV_2D", "executorch": "Conv2d", "openvino": "Convolution", "onnx": "QLinearConv",
}  # fmt: skip


def refused(capsys, *arguments: object) -> tuple[int, str]:
    code = run(main, [*map(str, arguments), "--operators"])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and "Traceback" not in captured.err
    return code, captured.err


@pytest.fixture(scope="module")
def profiled(tiny_run):
    """Target -> the JSON of its file, made once."""
    made: dict[str, dict] = {}

    def make(target: str, capsys) -> dict:
        if target not in made:
            assert run(main, [str(tiny_run.file(target)), "--operators", "--runs", "12", "--json"]) == EXIT_OK
            out = capsys.readouterr().out
            made[target] = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        return made[target]

    return make


def test_every_format_has_a_profiler():
    assert set(PROFILERS) == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_format_is_resolved_to_its_operators(target, profiled, capsys):
    found = profiled(target, capsys)
    assert set(found) == FIELDS
    assert found["runs"] == 12 and found["format"] == target
    operators = found["operators"]
    assert len(operators) > 50 and all(op["ms"] is not None and op["ms"] >= 0 for op in operators)
    convolutions = [op for op in operators if op["type"] == CONVOLUTIONS[target]]
    assert {op["precision"] for op in convolutions} & {"int8"} and all(op["name"] for op in convolutions)
    assert {op["precision"] for op in operators} <= {"int8", "float", "mixed", "integer", None}
    assert {op["delegate"] is not None for op in operators} == {target in ("tflite", "executorch")}


@pytest.mark.parametrize("target", TARGETS)
def test_the_parts_make_the_whole(target, profiled, capsys):
    found = profiled(target, capsys)
    assert found["attributed_ms"] == pytest.approx(sum(op["ms"] for op in found["operators"]))
    assert sum(total["ms"] for total in found["totals"]) == pytest.approx(found["attributed_ms"])
    assert sum(total["count"] for total in found["totals"]) == len(found["operators"])
    whole = found["attributed_ms"] + found["unattributed_ms"]
    assert sum(op["share"] for op in found["operators"]) == pytest.approx(found["attributed_ms"] / whole)
    shortest, least = found["inference_ms"]["min"], sum(op["min_ms"] for op in found["operators"])
    # On a busy machine the whole is stretched without limit, so no share of it is asked for. But no sum of the shortest
    # parts exceeds the shortest whole, and a fiftieth of a millisecond is less than this network can do with.
    assert 0.02 < least <= shortest <= found["inference_ms"]["median"]


def test_layers_keep_their_names_in_tflite(profiled, capsys):
    operators = profiled("tflite", capsys)["operators"]
    by_type = {kind: [op for op in operators if op["type"] == kind] for kind in ("DEPTHWISE_CONV_2D", "BATCH_MATMUL")}
    assert len(by_type["DEPTHWISE_CONV_2D"]) == 4 and len(by_type["BATCH_MATMUL"]) == 8  # four blocks
    assert all("depthwise" in op["name"] and "DWConv" in op["kernel"] for op in by_type["DEPTHWISE_CONV_2D"])
    assert all(op["precision"] == "float" for op in by_type["BATCH_MATMUL"])


def test_table(tiny_run, capsys):
    assert run(main, [str(tiny_run.file("tflite")), "--operators", "--runs", "2", "--top", "3"]) == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert "medians of 2" in lines[1]
    assert any("XNNPACK: Batch Matrix Multiply" in line for line in lines)
    assert any("not attributed" in line and "%" in line for line in lines[2:])
    assert sum(" more" in line for line in lines) == 1


def test_built_in_kernels(tiny_run):
    profile = profile_operators(tiny_run.file("tflite"), delegate=False, runs=2)
    assert all(op.delegate is None and op.kernel == "LiteRT kernel" for op in profile.operators)
    gelu = [op for op in profile.operators if op.type == "GELU"]
    assert len(gelu) == 4 and all(op.precision == "float" and op.name for op in gelu)


def test_without_a_compiler_the_operators_of_a_pte_are_listed_without_times(tiny_run, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    profile = profile_operators(tiny_run.file("executorch"), runs=2)
    assert len(profile.operators) > 50 and {op.ms for op in profile.operators} == {None}
    assert any("No C compiler" in note for note in profile.notes)
    assert profile.attributed_ms == 0 and profile.unattributed_ms == pytest.approx(median(profile.inference))


def test_a_file_of_another_producer_and_its_open_shape(tmp_path, capsys):
    def made(side: int | str) -> str:
        x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [side, 8]) for n in "xy")
        node = onnx.helper.make_node("Softmax", ["x"], ["y"], name="only")
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], "g", [x], [y]), opset_imports=[onnx.helper.make_opsetid("", 17)]
        )
        model.ir_version = 9
        path = tmp_path / f"{side}.onnx"
        onnx.save(model, str(path))
        return str(path)

    (operator,) = profile_operators(tmp_path / made(4), runs=2).operators
    assert (operator.type, operator.name, operator.precision, operator.shape) == ("Softmax", "only", "float", (4, 8))
    code, error = refused(capsys, made("n"))
    assert code == EXIT_USAGE and "no fixed shape" in error


def test_bad_requests(tiny_run, tmp_path, capsys):
    file = tiny_run.file("tflite")
    for arguments, words in (
        (["--on", "cortex-a72"], "--on is for the memory profile"),
        (["--plot", "x.svg"], "--plot is for the memory profile"),
        (["--no-measure"], "--no-measure is for the memory profile"),
        (["--compiled", "--no-delegate"], "Name one of the two"),
        (["--runs", "0"], "--runs is at least 1; got 0"),
        (["--threads", "0"], "--threads is at least 1; got 0"),
        (["--top", "0"], "--top is at least 1; got 0"),
    ):
        code, error = refused(capsys, file, *arguments)
        assert code == EXIT_USAGE and words in error
    code, error = refused(capsys, tiny_run.file("onnx"), "--no-delegate")
    assert code == EXIT_USAGE and "for .tflite files" in error
    code, error = refused(capsys, tmp_path / "none.onnx")
    assert code == EXIT_USAGE and "none.onnx" in error
    assert run(main, [str(file), "--runs", "3"]) == EXIT_USAGE
    assert "--runs is for --operators" in capsys.readouterr().err


@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_file(target, tiny_run, tmp_path, capsys):
    source = tiny_run.file(target)
    cut = tmp_path / source.name
    cut.write_bytes(source.read_bytes()[: source.stat().st_size // 3])
    code, error = refused(capsys, cut, "--runs", "1")
    assert code == EXIT_USAGE and cut.name in error


def test_another_litert_is_refused_with_the_version_to_install(monkeypatch):
    monkeypatch.setattr(litert_api, "version", lambda name: "2.4.1")
    monkeypatch.setattr(profiler, "open_api", litert_api.open_api.__wrapped__)
    with pytest.raises(UsageError, match=r"installed is 2\.4\.1(.|\n)*ai-edge-litert==2\.3\.0"):
        profiler.LiteRTProfiler(Path("model.tflite"), 1, True, True)


def test_medians_need_the_same_operators():
    one, other = Event(1.0, "Add", "a"), Event(4.0, "Add", "a")
    (found,) = medians([[one], [other], [other]])
    assert found.min_ms == 1.0
    assert found.ms == 4.0
    assert medians([[one], [Event(1.0, "Add", "b")]]) is None
    assert medians([[one], [one, one]]) is None


def test_a_busy_machine_is_said():
    operator = OperatorTime("Add", "a", "", None, "float", (1,), 5.0)
    about = ("f.onnx", "onnx", "onnxruntime", {}, "host", 1)
    calm = OperatorProfile(*about, (6.0, 6.0), (1.0, 1.0), (6.0,), (operator,), ())
    busy = OperatorProfile(*about, (20.0, 20.0), (1.0, 1.0), (6.0,), (operator,), ())
    assert not calm.disturbed and busy.disturbed
    assert calm.share(5.0) == busy.share(5.0) == pytest.approx(5 / 6)
