"""What a user types as a path, and the system takes for none."""

from __future__ import annotations

from pathlib import Path

import pytest

from segformer_edge.camera.config import CameraConfig
from segformer_edge.camera.sources import open_source as open_camera
from segformer_edge.data.layouts import check_root
from segformer_edge.errors import UsageError
from segformer_edge.export.outdir import OutputFolder
from segformer_edge.model.sources import open_source
from segformer_edge.paths import user_path


@pytest.fixture(params=["~nobody-here/x", "a" * 300, "loop/x", "nul\0"])
def no_path(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    return request.param


@pytest.mark.parametrize(
    "reader",
    [user_path, open_source, check_root, OutputFolder, lambda text: open_camera(CameraConfig(source=text))],
    ids=["path", "weights", "data", "out", "camera"],
)
def test_what_is_no_path_is_refused(reader, no_path):
    with pytest.raises(UsageError, match="cannot be a path"):
        reader(no_path)


def test_what_is_not_there_is_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/new") == tmp_path / "new"
    (tmp_path / "file").touch()
    assert user_path(tmp_path / "file" / "new") == tmp_path / "file" / "new"
