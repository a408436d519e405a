"""``segformer-edge``: every command under one name, quickly."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module

import pytest

from segformer_edge.__main__ import COMMANDS, main
from segformer_edge.errors import UsageError
from segformer_edge.export.targets import TARGETS
from segformer_edge.targets import main as targets


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_takes(name, capsys):
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0 and "usage:" in capsys.readouterr().out
    assert callable(import_module(COMMANDS[name].module).main)


def test_help_names_all_and_a_slip_is_told(capsys):
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    with pytest.raises(UsageError, match=r"no command 'quantise'(.|\n)*Did you mean 'quantize'"):
        main(["quantise"])
    assert main(["--version"]) == 0 and capsys.readouterr().out.startswith("segformer-edge ")


def test_the_rest_belongs_to_the_command():
    with pytest.raises(UsageError, match="--max-drop"):
        main(["quantize", "--max-drop", "-1"])


def test_as_a_module_and_without_what_a_command_needs_it_is_quick():
    """Best of three, since other work on the machine is no defect. A page of help needs no torch and no runtime."""
    command = [sys.executable, "-X", "importtime", "-m", "segformer_edge", "--help"]
    took = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        took.append(time.perf_counter() - start)
    imported = {line.rsplit("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "numpy", "cv2", "rich", "onnxruntime", "openvino"}
    assert min(took) < 1.0
    wrong = subprocess.run([*command[:1], "-m", "segformer_edge", "profil"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "Did you mean 'profile'" in wrong.stderr and "Traceback" not in wrong.stderr


def test_targets_are_those_of_the_table(capsys, monkeypatch):
    monkeypatch.setattr("segformer_edge.targets.find_spec", lambda name: None if name == "onnxscript" else True)
    assert targets(["--json"]) == 0
    rows = {row["target"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(TARGETS)
    assert not rows["onnx"]["installed"] and rows["tflm"]["installed"]
    assert targets([]) == 0
    shown = capsys.readouterr().out
    assert "segformer-edge[onnx]" in shown and "ethos-u85-256" in shown
