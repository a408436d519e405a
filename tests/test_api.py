"""``segformer_edge.quantize(...)`` and its neighbours: the commands' options, errors and results."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

import segformer_edge
from segformer_edge.commands import COMMANDS
from segformer_edge.errors import SegformerEdgeError
from segformer_edge.report.schema import Report

#: Options of a command that say how it prints, not what it does.
PRINTING = {"help", "verbosity", "json", "top"}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["quantize", "evaluate", "profile"])
def test_a_function_takes_what_its_command_takes(name):
    """Names and defaults; ``--no-delegate`` is ``delegate=False``. What is beside them is for programs alone."""
    options = {
        action.dest.removeprefix("no_"): (not action.default) if action.dest.startswith("no_") else action.default
        for action in COMMANDS[name].parser()._actions
        if action.dest not in PRINTING
    }
    taken = inspect.signature(getattr(segformer_edge, name)).parameters
    assert set(taken) - {"tell", "command"} == set(options)
    for option, default in options.items():
        given = taken[option].default
        assert given is inspect.Parameter.empty or str(given) == str(default), option


@pytest.mark.parametrize(
    "imports",
    [
        "import segformer_edge.quantize, segformer_edge",
        "import segformer_edge; segformer_edge.quantize; import segformer_edge.quantize",
        "from segformer_edge import quantize; import segformer_edge",
        "import segformer_edge; from segformer_edge.quantize import main",
    ],
)
def test_it_is_one_object_whatever_was_imported_before(imports):
    python(f"""
        {imports}
        from segformer_edge import quantize
        import segformer_edge.quantize as module
        assert module is quantize is segformer_edge.quantize
        assert callable(quantize) and callable(module.main)
        try:
            quantize(size=100)
        except segformer_edge.SegformerEdgeError as error:
            assert "--size 96" in str(error)
        else:
            raise AssertionError
    """)


def test_importing_the_package_is_quick_and_light():
    heavy = python("import sys, segformer_edge; print({'torch', 'numpy', 'cv2', 'rich'} & set(sys.modules))")
    assert heavy.strip() == "set()"
    assert cpu_seconds("-c", "import segformer_edge") < 0.2


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_quick(name):
    assert cpu_seconds("-m", "segformer_edge", name, "--help") < 0.3


def cpu_seconds(*words: str) -> float:
    """Of Python with ``words``, best of three. Wall time would be that of everything else on the machine."""
    taken = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(taken)


def test_every_name_is_there():
    for name in segformer_edge.__all__:
        assert callable(getattr(segformer_edge, name)) and name in dir(segformer_edge)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        segformer_edge.quantise  # noqa: B018


@pytest.mark.parametrize(
    ("call", "command"),
    [
        (lambda: segformer_edge.quantize(size=(100, 64)), "quantize --size 100x64"),
        (lambda: segformer_edge.quantize(memory_budget="two"), "quantize --memory-budget two"),
        (lambda: segformer_edge.quantize(max_drop=-1.0), "quantize --max-drop -1"),
        (lambda: segformer_edge.quantize(targets=["tflight"]), "quantize --targets tflight"),
        (lambda: segformer_edge.evaluate("x.onnx", data="demo", threads=0), "evaluate x.onnx --data demo --threads 0"),
        (lambda: segformer_edge.evaluate("x.tflite", data="demo:vla"), "evaluate x.tflite --data demo:vla"),
        (lambda: segformer_edge.profile("x.tflite", runs=3), "profile x.tflite --runs 3"),
        (lambda: segformer_edge.profile("x.tflite", on="cortex-a7"), "profile x.tflite --on cortex-a7"),
        (
            lambda: segformer_edge.profile("x.pte", on="ethos-u85-256", delegate=False),
            "profile x.pte --on ethos-u85-256 --no-delegate",
        ),
    ],
)  # fmt: skip
def test_the_same_error_as_the_command(call: Callable[[], object], command: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.tflite").write_bytes(b"....TFL3")
    name, *words = command.split()
    with pytest.raises(SegformerEdgeError) as of_command:
        COMMANDS[name].main(words)
    with pytest.raises(type(of_command.value)) as of_function:
        call()
    assert str(of_function.value) == str(of_command.value)


def test_quantize_evaluate_profile(tiny_weights, calibration_folder, tiny_dataset, tmp_path, capsys):
    out = tmp_path / "out"
    report = segformer_edge.quantize(
        weights=tiny_weights, size=(64, 96), calibration=calibration_folder, eval=tiny_dataset, targets=["onnx"],
        max_drop=100.0, memory_budget=64 * 2**20, out=out,
    )  # fmt: skip
    assert report == Report.load(out / "report.json")
    assert report.targets[0].status == "ok" and report.targets[0].budget.bytes == 64 * 2**20
    result = segformer_edge.evaluate(out / "model.onnx", data=tiny_dataset)
    assert result.miou == pytest.approx(report.targets[0].miou) and result.latency_ms.median > 0
    assert result.scored.format == "onnx" and result.class_names == tuple(result.iou_by_name(result.class_names))
    profile = segformer_edge.profile(out / "model.onnx", measure=False)
    assert profile.format == "onnx" and profile.measured is None
    assert capsys.readouterr().out == ""
    assert COMMANDS["evaluate"].main([str(out / "model.onnx"), "--data", tiny_dataset, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["miou"] == pytest.approx(result.miou)
