"""``--android``: the .pte and its metadata in the app's assets, both or neither, and only where that makes sense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from segformer_edge.cli import run
from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.export.android import AndroidProject, install_result
from segformer_edge.export.targets import choose_targets
from segformer_edge.quantize import main
from segformer_edge.report.schema import Report, TargetReport
from segformer_edge.runtime.metadata import ArtifactMetadata

DEMO = Path(__file__).parents[2] / "android_demo"


@pytest.fixture
def project(tmp_path: Path) -> AndroidProject:
    """The app's project, without its sources."""
    manifest = tmp_path / "app/app/src/main/AndroidManifest.xml"
    manifest.parent.mkdir(parents=True)
    shutil.copy(DEMO / "app/src/main/AndroidManifest.xml", manifest)
    return AndroidProject.open(tmp_path / "app")


@pytest.fixture
def model(tiny_run: Any) -> Path:
    """A .pte with its sidecar."""
    return tiny_run.file("executorch")


def names(project: AndroidProject) -> list[str]:
    return sorted(file.name for file in project.assets.iterdir())


def test_the_repository_s_app_is_a_project() -> None:
    assert AndroidProject.open(DEMO).assets == DEMO / "app/src/main/assets"


def test_installs_both_files_and_keeps_other_models(project: AndroidProject, model: Path) -> None:
    project.assets.mkdir()
    (project.assets / "other.pte").write_text("another model")
    (project.assets / "model.pte").write_text("an old model")
    installed = project.install(model)
    assert names(project) == ["model.pte", "model.pte.json", "other.pte"]
    assert ArtifactMetadata.load(installed) == ArtifactMetadata.load(model)
    assert sorted(file.name for file in project.assets.parent.iterdir()) == ["AndroidManifest.xml", "assets"]


def test_a_damaged_file_changes_nothing(project: AndroidProject, model: Path, tmp_path: Path) -> None:
    project.install(model)
    before = (project.assets / "model.pte").read_bytes()
    damaged = tmp_path / "model.pte"
    damaged.write_bytes(model.read_bytes()[:-1])
    shutil.copy(f"{model}.json", f"{damaged}.json")
    with pytest.raises(ArtifactError, match="was changed after export"):
        project.install(damaged)
    assert (project.assets / "model.pte").read_bytes() == before and names(project) == ["model.pte", "model.pte.json"]


def test_a_failed_copy_changes_nothing(project: AndroidProject, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("segformer_edge.export.android.shutil.copyfile", fail)
    with pytest.raises(OSError, match="Input/output error"):
        project.install(model)
    assert not project.assets.exists()


def test_a_target_that_is_not_ok_is_not_installed(
    project: AndroidProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = (TargetReport("onnx", "ok", files=("model.onnx",)), TargetReport("executorch", "below_accuracy"))
    report = Report("b0", "w", (64, 64), "logits", 1.0, None, reports)
    assert install_result(project, report, tmp_path) is None
    assert "executorch is 'below_accuracy'" in capsys.readouterr().err and not project.assets.exists()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not the Android app: it has no 'app/src/main/AndroidManifest.xml'"):
        AndroidProject.open(tmp_path)


def test_assets_that_are_a_file_are_refused(project: AndroidProject) -> None:
    project.assets.write_text("")
    with pytest.raises(UsageError, match="is a file"):
        AndroidProject.open(project.folder)


def test_a_run_without_a_pte_is_refused(project: AndroidProject) -> None:
    with pytest.raises(UsageError, match=r"the targets \(tflite, onnx\) make none") as caught:
        project.check_targets(choose_targets(["onnx", "tflite"]))
    assert "--targets executorch,tflite,onnx" in str(caught.value)


def test_the_command_refuses_early(project: AndroidProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before it loads anything or makes a folder."""
    out = tmp_path / "out"
    assert run(main, ["--out", str(out), "--android", str(tmp_path)]) == 2
    assert run(main, ["--out", str(out), "--android", str(project.folder), "--targets", "onnx"]) == 2
    assert capsys.readouterr().err.count("error:") == 2 and not out.exists()


def test_the_command_installs(
    project: AndroidProject, tiny_weights: Path, calibration_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = ["--weights", tiny_weights, "--size", "64x96", "--calibration", calibration_folder, "--json",
                 "--targets", "executorch", "--out", tmp_path / "out", "--android", project.folder]  # fmt: skip
    assert run(main, [str(word) for word in arguments]) == 0
    assert json.loads(capsys.readouterr().out)["targets"][0]["status"] == "ok"
    assert names(project) == ["model.pte", "model.pte.json"]
    assert (project.assets / "model.pte").read_bytes() == (tmp_path / "out/model.pte").read_bytes()
