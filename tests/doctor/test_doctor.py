"""``segformer-edge doctor``: what it finds, the command that mends it, and its exit code."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from segformer_edge.doctor import packages, tools
from segformer_edge.doctor.command import main
from segformer_edge.doctor.findings import Finding, State
from segformer_edge.doctor.machine import machine_findings
from segformer_edge.doctor.packages import load_error, requirements_of, target_finding, versions_of
from segformer_edge.export.targets import CPU_TARGETS, TARGETS

#: What the project's metadata would say; numpy is installed wherever this runs.
REQUIRES = [
    "rich>=13",
    "segformer-edge[model]; extra == 'tflite'",
    "numpy>=1.24; extra == 'model'",
    "no-such-runtime==2.3.0; extra == 'tflite'",
    "other; platform_machine == 'pdp11' and extra == 'tflite'",
]


@pytest.fixture
def loads(monkeypatch) -> dict[str, str]:
    """Exporter's module -> why it does not load. The packages of this machine are not imported."""
    errors: dict[str, str] = {}
    monkeypatch.setattr(packages, "load_error", lambda modules, seconds: errors.get(modules[-2], ""))
    return errors


def shown(capsys, *options: str) -> tuple[int, dict]:
    code = main(["--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_all_is_well(loads, capsys):
    code, found = shown(capsys)
    assert code == 0 and found["works"] is True
    assert {each["name"] for each in found["findings"] if each["area"] == "targets"} == set(TARGETS)
    assert all(each["fix"] for each in found["findings"] if each["state"] in ("missing", "broken", "other version"))
    assert main([]) == 0
    table = capsys.readouterr().out
    assert "CPU" in table and table.splitlines()[-1].startswith(
        "next: python -m segformer_edge.quantize --out out/first"
    )


@pytest.mark.parametrize(("target", "code"), [(CPU_TARGETS[1], 1), ("tflm", 0)])
def test_a_target_that_does_not_load(loads, capsys, target, code):
    """Only the default targets count for the exit code."""
    loads[TARGETS[target].exporter.split(":")[0]] = "ImportError: libthing.so.1: cannot open shared object file"
    given, found = shown(capsys)
    row = next(each for each in found["findings"] if each["name"] == target)
    assert given == code and found["works"] is (code == 0)
    assert row["state"] in ("broken", "missing") and row["fix"].startswith("pip install 'segformer-edge[")
    if code:
        assert main([]) == 1
        assert "1 of the 4 default targets do not work: pip install" in capsys.readouterr().out


def test_pins_come_from_the_projects_metadata(monkeypatch):
    monkeypatch.setattr(packages, "requires", lambda project: REQUIRES)
    assert [str(each.name) for each in requirements_of("tflite")] == ["numpy", "no-such-runtime"]
    assert versions_of("tflite").missing == ("no-such-runtime",)
    finding = target_finding(TARGETS["tflite"], "ModuleNotFoundError: No module named 'no_such_runtime'")
    assert finding.state is State.MISSING and "no-such-runtime" in finding.detail and "[tflite]" in finding.fix
    monkeypatch.setattr(packages, "requires", lambda project: ["numpy==1.0; extra == 'tflite'"])
    finding = target_finding(TARGETS["tflite"], "")
    assert finding.state is State.OTHER_VERSION and "tried with ==1.0" in finding.detail and finding.works


def test_without_metadata_it_says_so(monkeypatch):
    def none(project: str) -> list[str]:
        raise PackageNotFoundError(project)

    monkeypatch.setattr(packages, "requires", none)
    assert target_finding(TARGETS["onnx"], "").state is State.MISSING


def test_modules_are_loaded_in_a_process_with_a_time_limit(tmp_path, monkeypatch):
    (tmp_path / "sleeps.py").write_text("import time; time.sleep(60)")
    (tmp_path / "crashes.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert load_error(["json", "string"]) == ""
    assert load_error(["json", "no_such_module"]) == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "longer than 0.5 s" in load_error(["sleeps"], seconds=0.5)
    assert load_error(["crashes"]) != ""


def test_the_machine(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text("Features\t: fp asimd asimddp\nModel\t: Raspberry Pi 5 Model B Rev 1.0\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{2**30}\n")
    cpu, memory, disk, python = machine_findings(tmp_path, Path())
    assert "Raspberry Pi 5" in cpu.detail and "dotprod" in cpu.detail and "AVX" not in cpu.detail
    assert memory.detail.startswith("1.0 GiB free of 1.0 GiB") and "--targets" in memory.detail
    (tmp_path / "sys/fs/cgroup/memory.current").write_text(f"{2**29}\n")
    assert machine_findings(tmp_path, Path())[1].detail.startswith("0.5 GiB free of 1.0 GiB")
    assert "GiB free" in disk.detail and python.works
    empty = machine_findings(tmp_path / "nothing")
    assert "unknown CPU" in empty[0].detail


def test_tools(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SEGFORMER_EDGE_ARM", str(tmp_path))
    found = {each.name: each for each in tools.tool_findings()}
    assert found["C compiler"].state is State.MISSING and found["C compiler"].fix == "apt-get install gcc"
    assert found["emulated aarch64"].fix == "python -m segformer_edge.emulation prepare aarch64"
    assert found["Chromium"].fix == "make browser-setup" and "chromedriver" in found["Chromium"].detail


def test_a_fault_has_a_remedy():
    with pytest.raises(ValueError, match="no command mends it"):
        Finding("targets", "onnx", State.BROKEN, "does not load")
