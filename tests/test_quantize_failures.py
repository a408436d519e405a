"""What is delivered, told and left on the disk when something goes wrong on the way."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.fixture
def start(tiny_run, tmp_path) -> Callable[..., subprocess.Popen]:
    """Starts the command on the tiny checkpoint, with the fake targets in the table; it writes to tmp_path/out."""

    def popen(*options: object, calibrate: bool = False) -> subprocess.Popen:
        source = ["--calibration", tiny_run.options.calibration] if calibrate else []
        source = source or ["--encodings", tiny_run.out / "encodings.json"]
        command = [sys.executable, TESTS / "fake_exporters.py", "--weights", tiny_run.weights, "--size", "64x96"]
        command += [*source, "--no-profile", "--out", tmp_path / "out"]
        return subprocess.Popen(
            [str(word) for word in (*command, *options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "FAKE_EXPORTERS_SOURCE": str(tiny_run.out),
                "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
            },
        )

    return popen


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_target_leaves_the_others_alone(start, tiny_run, tiny_dataset, tmp_path):
    process = start("--targets", "copies,lies,raises,dies,forgets,babbles", "--eval", tiny_dataset,
                    "--max-drop", 100, "--json")  # fmt: skip
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    targets = {target["target"]: target for target in json.loads(out)["targets"]}
    assert {name: target["status"] for name, target in targets.items()} == {
        "copies": "ok", "lies": "failed", "raises": "failed", "dies": "failed", "forgets": "failed",
        "babbles": "failed",
    }  # fmt: skip
    for name, words in {
        "lies": "agrees with the quantized reference on",
        "raises": "NotImplementedError: no kernel for frobnicate",
        "dies": "was ended by signal 9. segmentation violation in kernel 7",
        "forgets": "did not write model_forgotten.onnx",
        "babbles": "model_babbles.onnx' is not loaded: damaged",
    }.items():
        assert words in targets[name]["error"]
        assert targets[name]["files"] == [] and targets[name]["bytes"] is None and targets[name]["miou"] is None
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["encodings.json", "model.onnx", "model.onnx.json", "report.html", "report.json"]
    assert (tmp_path / "out" / "model.onnx").read_bytes() == tiny_run.file("onnx").read_bytes()
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(out)


def test_the_accuracy_gate_has_a_code_of_its_own(start, tiny_dataset, tmp_path):
    process = start("--targets", "copies", "--eval", tiny_dataset, "--max-drop", 0.0, "--verbose")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 4 and "] check copies\n" in err, err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    target = report["targets"][0]
    assert target["status"] == "below_accuracy" and target["miou_drop"] > 0 and "--max-drop 0 points" in target["error"]
    assert "below" in out and f"{target['miou']:.4f}" in out


@pytest.mark.parametrize(
    ("limit", "targets"),
    [
        (100_000, "onnx"),  # the encodings do not fit
        (1_000_000, "onnx"),  # the weights for the exporters do not fit
        (32_000_000, "copies,fills"),  # one of the artifacts does not fit
        (32_000_000, "fillsquietly"),
    ],
)
def test_a_full_disk_is_one_message_and_leaves_nothing(start, tmp_path, limit, targets):
    process = start("--targets", targets)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1 and out == ""
    message = [line for line in err.splitlines() if not line.startswith("warning:")]
    assert message[0].startswith("error: No space left while writing") and str(tmp_path / "out") in message[0]
    assert len(message) == 2 and names(tmp_path) == []


def workers_of(pid: int) -> list[int]:
    """Exporting processes that ``pid`` has started."""
    try:
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in found if b"export.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:  # one ended meanwhile
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers_started(process: subprocess.Popen) -> list[int]:
    """Process ids of the exporters, once all that run side by side are there and at work."""
    workers: list[int] = []
    deadline = time.monotonic() + 120
    while len(workers) < min(2, len(os.sched_getaffinity(0))) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
        workers = workers_of(process.pid)
    return workers


def test_exporters_end_with_a_killed_command(start):
    process = start("--targets", "tflite,executorch", calibrate=True)
    workers = workers_started(process)
    time.sleep(5)  # until they have imported torch and watch their parent
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert workers and not any(map(alive, workers))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_exporters_and_leave_nothing(start, tmp_path, number, code):
    process = start("--targets", "tflite,executorch", calibrate=True)
    workers = workers_started(process)
    time.sleep(1)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code and out == ""
    assert err.splitlines()[-1] == ("interrupted" if code == 130 else "terminated") and "Traceback" not in err
    assert workers and not any(map(alive, workers))
    assert names(tmp_path) == []


def test_without_force_an_earlier_result_stays_whole(start, tiny_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.tflite").write_text("earlier")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    process = start("--targets", "copies")
    assert "--force" in process.communicate(timeout=300)[1] and process.returncode == 2
    assert names(tmp_path / "out") == ["model.tflite", "notes.txt"]
    process = start("--targets", "copies", "--force")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "copies" in out and f"next: python -m segformer_edge.evaluate {tmp_path / 'out' / 'model.onnx'}" in out
    assert "model.tflite" not in names(tmp_path / "out") and (tmp_path / "out" / "notes.txt").read_text() == "mine"
