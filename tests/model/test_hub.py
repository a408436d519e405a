"""Hub ids: fetched only when named, the licence said once, and clear without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

from segformer_edge.errors import CheckpointError
from segformer_edge.model import hub
from segformer_edge.model.checkpoint import load_checkpoint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nvidia/segformer-b0-finetuned-ade-512-512", True),
        ("someone/model_1.0", True),
        ("weights/b0.pth", False),
        ("./runs/b0", False),
        ("/runs/b0", False),
        ("runs/x/b0", False),
        ("b0", False),
        ("../b0", False),
        ("~/b0", False),
    ],
)
def test_what_reads_as_a_hub_id(text, expected):
    assert hub.is_hub_id(text) == expected


@pytest.fixture
def fake_hub(monkeypatch, transformers_model, tmp_path):
    """A hub whose every model is one folder; gives the list of ids asked for."""
    transformers_model("b0").save_pretrained(tmp_path)
    asked = []

    def snapshot_download(hub_id, **_):
        asked.append(hub_id)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub, "_notice_given", False)
    return asked


def test_nvidia_licence_is_said_once(fake_hub, capsys):
    loaded = load_checkpoint("nvidia/segformer-b0")
    assert "non-commercial" in loaded.licence
    first = capsys.readouterr()
    assert "non-commercial" in first.err
    assert "nvidia/segformer-b0" in first.err
    assert first.out == ""
    load_checkpoint("nvidia/segformer-b0")
    assert capsys.readouterr().err == ""
    assert fake_hub == ["nvidia/segformer-b0"] * 2


def test_other_owners_get_no_notice(fake_hub, capsys):
    assert load_checkpoint("someone/segformer-b0").source == "someone/segformer-b0"
    assert capsys.readouterr().err == ""


def test_local_folder_goes_before_the_hub(fake_hub, state, tmp_path, monkeypatch):
    folder = tmp_path / "work" / "nvidia" / "mine"
    folder.mkdir(parents=True)
    torch.save(state, folder / "w.pth")
    monkeypatch.chdir(tmp_path / "work")
    load_checkpoint("nvidia/mine")
    assert fake_hub == []


def test_bin_is_fetched_where_there_is_no_safetensors(monkeypatch, transformers_model, tmp_path):
    asked = []

    def snapshot_download(hub_id, allow_patterns):
        asked.append(allow_patterns)
        if "pytorch_model*.bin" in allow_patterns:
            torch.save(transformers_model("b0").state_dict(), tmp_path / "pytorch_model.bin")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load_checkpoint("someone/old").variant == "b0"
    assert len(asked) == 2


def test_model_without_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(CheckpointError, match="'someone/empty' has no model"):
        load_checkpoint("someone/empty")


def test_offline(tmp_path):
    code = (
        "from segformer_edge.errors import CheckpointError\n"
        "from segformer_edge.model.checkpoint import load_checkpoint\n"
        "try:\n    load_checkpoint('nvidia/segformer-b0')\n"
        "except CheckpointError as error:\n    print(error); raise SystemExit(error.exit_code)\n"
    )
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2, done.stderr
    assert "'nvidia/segformer-b0'" in done.stdout
    assert "HF_HUB_OFFLINE" in done.stdout and "--weights DIR" in done.stdout
    assert "non-commercial" not in done.stderr, "nothing was fetched, so there is nothing to say"
