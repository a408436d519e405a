"""Exporting processes end with the command, and what they started with them."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from segformer_edge.export import pool
from segformer_edge.export.targets import TARGETS, choose_targets
from segformer_edge.prepare import QuantizeOptions, recipe_for

ROOT = Path(__file__).parents[2]


def running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_takes_its_compiler_with_it(tmp_path, monkeypatch):
    note = tmp_path / "pid"

    def start(job, folder, name):
        compiler = f"sleep 60 & echo $! > {note}.part; mv {note}.part {note}; wait"
        return subprocess.Popen(["sh", "-c", compiler], start_new_session=True)

    def interrupt(name):
        while not note.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "_start", start)
    with pytest.raises(KeyboardInterrupt):
        pool.run_jobs({"tflite": None}, tmp_path, on_start=interrupt)
    deadline = time.monotonic() + 10
    while running(int(note.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("module", ["ethos_u", "tflm"])
def test_an_exporter_can_be_imported_first(module):
    """As doctor does."""
    command = [sys.executable, "-c", f"import segformer_edge.export.{module}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_encodings_spare_the_question_of_recipes(tmp_path):
    options = QuantizeOptions(tmp_path, encodings=tmp_path / "encodings.json")
    assert recipe_for(options, choose_targets(["tflite", "ethos-u85-256"]))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_an_extra_installs_all_that_its_target_asks_for(target):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def packages(extra: str) -> set[str]:
        wanted = [Requirement(line) for line in extras[extra]]
        inner = {name for line in wanted if line.name == "segformer-edge" for name in line.extras}
        return {line.name.replace("-", "_") for line in wanted}.union(*(packages(name) for name in inner))

    modules = {"ethos_u_vela": "ethosu"}
    assert set(target.packages) <= {modules.get(name, name) for name in packages(target.extra)}
