"""``pip install segformer-edge`` without extras: everything starts, and what is missing is named with its extra."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from segformer_edge.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]

#: Command line -> the extra that it asks for. ``model`` is of all targets, ``micro`` for TFLite Micro.
MISSING = {
    "quantize": "executorch,tflite,openvino,onnx",
    "quantize --targets tflite": "tflite",
    "quantize --targets onnx,tflm": "onnx,tflm",
    "quantize --targets ethos-u85-256": "ethos-u",
    "sensitivity": "model,report",
    "erf": "model,report",
    "train --out trained": "train",
    "evaluate demo --data demo": "model",
    "evaluate model.tflite --data demo": "runtime-tflite",
    "evaluate model.onnx --data demo": "runtime-onnx",
    "evaluate model.xml --data demo": "runtime-openvino",
    "evaluate model.pte --data demo": "runtime-executorch",
    "profile model.tflite": "runtime-tflite",
    "profile model.onnx --operators": "runtime-onnx",
    "profile model.tflite --on ethos-u85-256": "ethos-u",
    "profile micro.tflite --on tflm": "runtime-tflm",
    "camera model.tflite --headless --source .": "runtime-tflite",
    "firmware micro.tflite": "runtime-tflm",
    "completion bash": "completion",
}
STARTING = [
    "",
    "--version",
    "targets",
    "targets --json",
    *(f"{name} --help" for name in COMMANDS if name != "emulation"),
]

#: Runs every command line in one process and prints what came of each: exit code, stdout, stderr.
SCRIPT = """
import contextlib, io, json, sys
from segformer_edge.__main__ import main
from segformer_edge.cli import run
outcomes = {}
for line in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run(main, line.split())
        except SystemExit as done:
            code = done.code
    outcomes[line] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(outcomes))
"""


def needed(requirement: str, found: set[str]) -> set[str]:
    """The distributions that ``requirement`` brings, added to ``found``."""
    each = Requirement(requirement)
    if (each.marker is None or each.marker.evaluate({"extra": ""})) and each.name not in found:
        found.add(each.name)
        for more in distribution(each.name).requires or ():
            needed(more, found)
    return found


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """Python of an environment that holds what the project needs without extras, linked from this one."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "project.pth").write_text(f"{ROOT}\n")
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        for name in needed(line, set()):
            files = distribution(name)
            for top in {file.parts[0] for file in files.files or () if file.parts[0] != ".."}:
                if not (site / top).exists():
                    (site / top).symlink_to(files.locate_file(top))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def outcomes(bare_python, tiny_run, tmp_path_factory) -> dict[str, tuple[int, str, str]]:
    work = tmp_path_factory.mktemp("work")
    for path in tiny_run.out.glob("model*"):
        shutil.copy(path, work)
    # No command gets as far as to run this file, so an ordinary one under another name will do.
    text = (work / "model.tflite.json").read_text().replace("model.tflite", "micro.tflite")
    (work / "micro.tflite.json").write_text(json.dumps(json.loads(text) | {"format": "tflm"}))
    shutil.copy(tiny_run.file("tflite"), work / "micro.tflite")
    before = set(work.iterdir())
    lines = json.dumps([*STARTING, *MISSING])
    done = subprocess.run([bare_python, "-c", SCRIPT, lines], capture_output=True, text=True, cwd=work, timeout=300)
    assert done.returncode == 0, done.stderr
    assert set(work.iterdir()) == before, "a command that could not start left something behind"
    return json.loads(done.stdout)


def test_the_environment_is_bare(bare_python):
    code = "import numpy, cv2, rich; from importlib.util import find_spec as f; print([f('torch'), f('pip')])"
    done = subprocess.run([bare_python, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[None, None]", done.stderr


@pytest.mark.parametrize("line", STARTING)
def test_it_starts(outcomes, line):
    code, out, err = outcomes[line]
    assert code == 0 and out and not err, err


@pytest.mark.parametrize("line", MISSING)
def test_what_is_missing_is_named_with_its_extra(outcomes, line):
    code, out, err = outcomes[line]
    assert code == 2 and not out
    what, hint = err.splitlines()
    assert what.startswith("error: ") and what.endswith("not installed.")
    assert hint.startswith(f"  pip install 'segformer-edge[{MISSING[line]}]'")


def test_no_command_is_left_out():
    alone = {"targets", "models", "doctor", "emulation"}  # which need nothing more
    assert {line.split()[0] for line in MISSING} == set(COMMANDS) - alone


def test_the_extras_are_those_of_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for extras_ in MISSING.values() for extra in extras_.split(",")} <= set(extras)
