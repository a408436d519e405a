"""The profile command: four formats, files of other producers, JSON, plots, bad input."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import torch

from segformer_edge.cli import EXIT_OK, EXIT_USAGE, run
from segformer_edge.export.targets import CPU_TARGETS
from segformer_edge.memory.profiling import profile_file
from segformer_edge.memory.timeline import short_name
from segformer_edge.profile import main

TARGETS = CPU_TARGETS
#: What a field's absence would break for a reader of --json.
FIELDS = {
    "schema_version", "file", "format", "file_bytes", "on", "threads", "delegate", "compiled", "metadata", "versions",
    "graph", "timeline", "tensors", "peak", "lower_bound_bytes", "greedy_bytes", "plans", "outside_plan", "measured",
    "gap", "notes",
}  # fmt: skip


def profiled(capsys, *arguments: object) -> dict:
    assert run(main, [*map(str, arguments), "--json"]) == EXIT_OK
    out = capsys.readouterr().out
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def refused(capsys, *arguments: object) -> tuple[int, str]:
    code = run(main, [*map(str, arguments)])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    return code, captured.err


def tflite_by_hand(path: Path, width: int = 32) -> Path:
    """x + x + x over ``width`` floats, two operators, written with the schema's own classes; no sidecar."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], [graph]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    model.operatorCodes = [code]
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [0], [2]
    for name in ("x", "twice", "thrice"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), [1, width], schema.TensorType.FLOAT32
        graph.tensors.append(tensor)
    for inputs, output in (([0, 0], 1), ([1, 0], 2)):
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
        graph.operators.append(operator)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


# -- what it says


@pytest.mark.parametrize("target", TARGETS)
def test_every_format_is_read_measured_and_compared(target, tiny_run, capsys):
    found = profiled(capsys, tiny_run.file(target))
    assert set(found) == FIELDS
    assert (found["schema_version"], found["format"], found["metadata"]["target"]) == (1, target, target)
    timeline, tensors = found["timeline"], found["tensors"]
    assert len(timeline) == found["graph"]["operators"] > 50
    assert max(step["live_bytes"] for step in timeline) == found["lower_bound_bytes"] == found["peak"]["bytes"]
    # With the operator's scratch, the tensors that are said to make the peak do.
    live = [tensors[i]["bytes"] for i in found["peak"]["tensors"]]
    assert sum(live) + found["peak"]["scratch_bytes"] == found["peak"]["bytes"]
    assert all(tensors[i]["first"] <= found["peak"]["operator"] <= tensors[i]["last"] for i in found["peak"]["tensors"])
    measured = found["measured"]
    assert measured["kind"] == "measured (allocator hook)"
    # No run can do with less than what is live at once, but for tensors that the caller owns.
    callers = sum(t["bytes"] for t in tensors if t["area"] == "caller")
    assert measured["run_split"]["activations"] >= 0.98 * (found["lower_bound_bytes"] - callers)
    gap = found["gap"]
    if target == "openvino":
        assert gap is None
        return
    assert gap["bytes"] == gap["measured_bytes"] - gap["planned_bytes"]
    assert gap["unexplained_bytes"] == gap["bytes"] - sum(gap["explained"].values())


@pytest.mark.parametrize("target", ["tflite", "executorch"])
def test_plan_and_estimates_account_for_what_xnnpack_takes(target, tiny_run, capsys):
    gap = profiled(capsys, tiny_run.file(target))["gap"]
    assert gap["explained"]["XNNPACK's workspace"] > 0
    assert abs(gap["unexplained_bytes"]) <= 0.03 * gap["measured_bytes"] + 16 * 1024


def test_the_arena_without_a_delegate_is_the_measured_one(tiny_run, capsys):
    found = profiled(capsys, tiny_run.file("tflite"), "--no-delegate")
    (plan,) = found["plans"]
    assert plan["bytes"] == pytest.approx(found["measured"]["arena_bytes"], abs=128)
    assert found["graph"]["delegated"] == 0
    assert found["outside_plan"] == {}


def test_the_table_names_the_peak_the_plan_and_the_gap(tiny_run, capsys):
    assert run(main, [str(tiny_run.file("tflite")), "--top", "2"]) == EXIT_OK
    out = capsys.readouterr().out
    for words in ("Peak: ", "TFLite arena beside XNNPACK", "lower bound", "weights packed", "GAP: ", "not explained"):
        assert words in out
    assert " more" in out


def test_without_measuring_nothing_is_run(tiny_run, capsys, monkeypatch):
    monkeypatch.setattr("segformer_edge.memory.profiling.measure", lambda *a, **k: pytest.fail("measured"))
    found = profiled(capsys, tiny_run.file("tflite"), "--no-measure")
    assert found["measured"] is found["gap"] is None
    assert found["plans"][0]["bytes"] > 0


def test_a_runtime_that_is_not_there_leaves_the_graph(tiny_run, capsys, monkeypatch):
    from segformer_edge.errors import MissingBackendError

    def missing(*arguments: object, **options: object) -> None:
        raise MissingBackendError("ExecuTorch", "runtime-executorch")

    monkeypatch.setattr("segformer_edge.memory.profiling.measure", missing)
    found = profiled(capsys, tiny_run.file("executorch"))
    assert found["measured"] is None
    assert any("pip install 'segformer-edge[runtime-executorch]'" in note for note in found["notes"])
    assert found["peak"]["bytes"] > 0


# -- plots


@pytest.mark.parametrize("suffix", [".svg", ".png", ".html"])
def test_plots_are_written_in_three_formats(suffix, tiny_run, tmp_path, capsys):
    out, file = (
        tmp_path / f"memory{suffix}",
        tmp_path / "files" / "a$x_$b$_$.tflite",
    )  # which matplotlib would read as formulas
    file.parent.mkdir()
    file.write_bytes(tiny_run.file("tflite").read_bytes())
    assert run(main, [str(file), "--no-measure", "--plot", str(out)]) == EXIT_OK
    content = out.read_bytes()
    if suffix == ".png":
        assert content.startswith(b"\x89PNG")
        return
    text = content.decode()
    assert "<svg" in text
    if suffix == ".svg":
        ElementTree.fromstring(text)
    else:
        assert "src=" not in text.replace('src="data:', "")
        assert "Live at the peak" in text
        assert "TFLite arena" in text
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]


@pytest.mark.parametrize(("name", "words"), [("memory.pdf", "is no plot"), ("nowhere/memory.svg", "cannot be written")])
def test_a_plot_that_cannot_be_is_refused_before_anything_runs(name, words, tiny_run, tmp_path, capsys):
    code, error = refused(capsys, tiny_run.file("tflite"), "--plot", tmp_path / name)
    assert code == EXIT_USAGE
    assert words in error


# -- files of other producers


def test_a_foreign_tflite_is_profiled_and_its_unknowns_are_named(tmp_path, capsys):
    found = profiled(capsys, tflite_by_hand(tmp_path / "foreign.tflite"), "--no-delegate")
    assert found["metadata"] is None
    assert "class names" in found["notes"][0]
    assert [step["type"] for step in found["timeline"]] == ["ADD", "ADD"]
    # x stays for the second addition, and LiteRT never gives its memory away.
    assert [step["live_bytes"] for step in found["timeline"]] == [256, 384]
    assert found["measured"]["arena_bytes"] >= 384


def test_a_foreign_onnx_is_profiled_and_its_open_sides_are_named(tmp_path, capsys):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1)).eval()
    path = tmp_path / "foreign.onnx"
    batch = {0: torch.export.Dim("batch", max=8)}
    torch.onnx.export(
        net, (torch.zeros(2, 3, 16, 16),), str(path), dynamo=True, external_data=False, verbose=False,
        dynamic_shapes={"input": batch},
    )  # fmt: skip
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_param
    found = profiled(capsys, path)
    assert found["metadata"] is None
    assert any("Open sides are taken as 1" in note for note in found["notes"])
    assert found["measured"] is None
    assert {tuple(t["shape"]) for t in found["tensors"] if t["kind"] == "output"} == {(1, 4, 16, 16)}


def test_a_second_subgraph_is_tolerated_and_mentioned(tmp_path):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    path = tflite_by_hand(tmp_path / "two.tflite")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    model.subgraphs.append(model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    profile = profile_file(path, measuring=False)
    assert any("1 more subgraphs" in note for note in profile.notes)


def test_a_damaged_sidecar_does_not_stop_it(tiny_run, tmp_path, capsys):
    path = tmp_path / "model.tflite"
    shutil.copy(tiny_run.file("tflite"), path)
    (tmp_path / "model.tflite.json").write_text("{}")
    found = profiled(capsys, path, "--no-measure")
    assert found["metadata"] is None
    assert "sidecar is of no use" in found["notes"][0]


# -- bad input


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kept", [0, 20, 0.5, 0.999])
def test_a_truncated_file_ends_in_an_error_line(target, kept, tiny_run, tmp_path, capsys):
    source = tiny_run.file(target)
    content = source.read_bytes()
    path = tmp_path / source.name
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    if source.suffix == ".xml":
        shutil.copy(source.with_suffix(".bin"), path.with_suffix(".bin"))
    code, error = refused(capsys, path)
    assert code == EXIT_USAGE
    assert str(path) in error


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("missing.tflite", EXIT_USAGE, "There is no file"),
        ("model.txt", EXIT_USAGE, "is no exported file"),
        ("model.tflit", EXIT_USAGE, "Did you mean"),
        ("model.bin", EXIT_USAGE, "holds only the weights"),
    ],
)
def test_wrong_names_say_what_to_name(name, code, words, tmp_path, capsys):
    if name.startswith("model"):
        (tmp_path / name).write_bytes(b"something else")
        (tmp_path / "model.tflite").touch()
    found, error = refused(capsys, tmp_path / name)
    assert found == code
    assert words in error


def test_a_folder_is_refused(tmp_path, capsys):
    folder = tmp_path / "out.tflite"
    folder.mkdir()
    assert refused(capsys, folder)[0] == EXIT_USAGE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "0"], "--threads is at least 1"),
        (["--top", "0"], "--top is at least 1"),
        (["--on", "cortex-a72x"], "Did you mean 'cortex-a72'"),
        (["--on", "zz"], "Choose one of: host, tflm, cortex-a53"),
        (["--on", "zz"], "ethos-u85-256"),
        (["--plott", "x.svg"], "Did you mean '--plot'"),
    ],
)
def test_wrong_options_are_usage_errors(arguments, words, tiny_run, capsys):
    code, error = refused(capsys, tiny_run.file("tflite"), *arguments)
    assert code == EXIT_USAGE
    assert words in error


def test_no_delegate_is_for_tflite(tiny_run, capsys):
    assert refused(capsys, tiny_run.file("onnx"), "--no-delegate")[0] == EXIT_USAGE
    assert refused(capsys, tiny_run.file("onnx"), "--compiled")[0] == EXIT_USAGE
    assert refused(capsys, tiny_run.file("tflite"), "--compiled", "--no-delegate")[0] == EXIT_USAGE


def test_an_emulated_cpu_that_is_not_prepared_names_the_command(tiny_run, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFORMER_EDGE_ARM", str(tmp_path))
    code, error = refused(capsys, tiny_run.file("tflite"), "--on", "cortex-a72")
    assert code == EXIT_USAGE
    assert "make arm-setup" in error


@pytest.mark.parametrize("more", [[], ["--operators"], ["--on", "tflm"]])
def test_a_file_for_an_npu_is_not_run_here(more, tiny_run, tmp_path, capsys):
    source = tiny_run.file("tflite")
    path = tmp_path / source.name
    shutil.copy(source, path)
    about = json.loads(Path(f"{source}.json").read_text())
    Path(f"{path}.json").write_text(json.dumps({**about, "target": "ethos-u85-256"}))
    code, error = refused(capsys, path, *more)
    assert code == EXIT_USAGE
    assert "which only that NPU runs" in error and "--on ethos-u85-256" in error and ".host.tflite" in error


def test_a_file_for_another_runtime_is_to_be_made_for_tflite_micro(tiny_run, capsys):
    assert "quantize --targets tflm" in refused(capsys, tiny_run.file("tflite"), "--on", "tflm")[1]


# -- names and imports


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("a/b/Conv_0;a/b;", "Conv_0"),
        (";;", ";;"),
        ("x" * 60, "..." + "x" * 45),
        ("plain", "plain"),
    ],
)
def test_long_names_are_cut_to_their_last_part(name, short):
    assert short_name(name) == short


def test_a_board_without_torch_profiles_tflite(tmp_path):
    """Only numpy, rich and the light runtime: anything else that is imported would not be there."""
    path = tflite_by_hand(tmp_path / "model.tflite", width=np.iinfo(np.int16).max)
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "executorch", "openvino", "litert_torch", "matplotlib", "jinja2"):
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Block())
from segformer_edge.profile import main
sys.exit(main([{str(path)!r}, "--no-measure", "--json"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == EXIT_OK, done.stderr
    assert json.loads(done.stdout)["lower_bound_bytes"] == 3 * 4 * np.iinfo(np.int16).max


def test_a_vector_that_claims_the_whole_address_space_is_refused(tmp_path, capsys):
    path = tmp_path / "model.pte"
    # A header that fits, and a root table whose first list has 2^31 entries.
    body = struct.pack("<I4s4sIQQQ", 48, b"ET12", b"eh00", 32, 96, 96, 0).ljust(48, b"\0")
    body += struct.pack("<HHHHi", 8, 8, 0, 4, 8) + struct.pack("<II", 4, 2**31)
    path.write_bytes(body.ljust(96, b"\0"))
    assert refused(capsys, path)[0] == EXIT_USAGE
