"""The default pipelines: their table, and that a file is built once, and a failure recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segformer_edge.errors import UsageError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ARGUMENTS = {"weights": "random:b0:5", "size": (64, 64), "calibration": "random", "images": 2}


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "defaults"]:
        del sys.modules[name]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, defaults: None) -> list[str]:
    """Two pipelines that write a few bytes; the list holds the names of those that ran."""
    from defaults import pipelines

    ran: list[str] = []

    class Fake(pipelines.Pipeline):
        def builder(self):
            def build(job, out):
                ran.append(self.name)
                if self.name == "broken":
                    raise ValueError("unsupported operator")
                start = job.float_file.read_bytes() if job.float_file else b""
                out.write_bytes(start + self.name.encode())
                return out

            return build

    table = (Fake("plain", ".bin", ("numpy",)), Fake("second", ".bin", (), "plain"), Fake("broken", ".bin", ()))
    for pipeline in table:
        monkeypatch.setitem(pipelines.PIPELINES, pipeline.name, pipeline)
    return ran


def test_table_imports_without_any_exporter():
    script = (
        "import sys\n"
        "for name in ('litert_torch', 'ai_edge_quantizer', 'executorch', 'torchao', 'onnx', 'onnxruntime', 'openvino',"
        " 'nncf', 'transformers', 'torch'):\n"
        "    sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from defaults.pipelines import PIPELINES\n"
        "print(len(PIPELINES))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 8


@pytest.mark.usefixtures("defaults")
def test_every_pipeline_has_its_file_and_int8_ones_follow_what_they_start_from():
    from defaults.pipelines import PIPELINES, choose_pipelines

    for name in PIPELINES:
        assert "def build(job: Job, out: Path) -> Path:" in (BENCHMARKS / "defaults" / f"{name}.py").read_text()
    assert [pipeline.name for pipeline in choose_pipelines(["onnx_int8"])] == ["onnx_float", "onnx_int8"]
    assert len(choose_pipelines([])) == len(PIPELINES)
    with pytest.raises(UsageError, match="litert_int8"):
        choose_pipelines(["litert_int4"])


@pytest.mark.usefixtures("defaults")
def test_the_model_is_transformers_own_with_logits_at_a_quarter():
    import torch
    from defaults.job import load_batches, load_model
    from transformers import SegformerForSemanticSegmentation

    model, (batch, other) = load_model("random:b0:5"), load_batches("random", (64, 96), 2)
    assert isinstance(model.model, SegformerForSemanticSegmentation)
    with torch.no_grad():
        assert model(batch).shape == (1, 5, 16, 24)
    assert not torch.equal(batch, other)
    # A stride of 0 is refused by ExecuTorch.
    assert 0 not in batch.stride()
    with pytest.raises(UsageError, match="random:b0:150"):
        load_model("random:b9:150")


def test_files_are_built_once_for_equal_inputs(fake, tmp_path):
    from defaults.build import build_one

    for name in ("plain", "second", "plain", "second"):
        build_one(name, **ARGUMENTS, out=tmp_path)
    assert fake == ["plain", "second"]
    assert (tmp_path / "second.bin").read_bytes() == b"plainsecond"
    record = json.loads((tmp_path / "second.build.json").read_text())
    first = json.loads((tmp_path / "plain.build.json").read_text())
    assert record["bytes"] == 11 and record["seconds"] > first["seconds"] > 0
    assert first["inputs"]["tools"]["numpy"]
    build_one("plain", **{**ARGUMENTS, "images": 3}, out=tmp_path)
    (tmp_path / "second.bin").write_bytes(b"changed")
    build_one("second", **ARGUMENTS, out=tmp_path)
    assert fake == ["plain", "second", "plain", "second"]


def test_a_failed_pipeline_leaves_its_reason_and_no_file(fake, tmp_path):
    from defaults.build import build_one

    with pytest.raises(ValueError, match="unsupported"):
        build_one("broken", **ARGUMENTS, out=tmp_path)
    with pytest.raises(RuntimeError, match="plain"):
        build_one("second", **ARGUMENTS, out=tmp_path)
    record = json.loads((tmp_path / "broken.build.json").read_text())
    assert record["status"] == "failed" and record["error"] == "ValueError: unsupported operator"
    assert record["bytes"] is None and record["seconds"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.build.json", "second.build.json"]


@pytest.mark.usefixtures("defaults")
def test_a_process_that_dies_is_recorded_and_the_command_goes_on(tmp_path, capfd, monkeypatch):
    from defaults import build as command

    monkeypatch.setattr(command, "_worker", _dies)
    assert command.main(["--size", "64", "--only", "onnx_float,openvino_float", "--out", str(tmp_path)]) == 1
    out = capfd.readouterr().out
    assert "onnx_float" in out and "openvino_float" in out and out.count("its process ended with") == 2


def _dies(*_: object) -> None:
    sys.exit(7)
