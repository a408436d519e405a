"""NVIDIA's checkpoints: the table of them, and folders laid out as the hub's cache has them, at random weights."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file

from segformer_edge.cli import run
from segformer_edge.data.class_tables import class_table
from segformer_edge.errors import CheckpointError, UsageError
from segformer_edge.model import hub
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.model.config import VARIANTS
from segformer_edge.model.published import ALIASES, PUBLISHED, meant, published_model
from segformer_edge.models import main

IMAGE = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(5))
REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_the_table_has_every_variant_and_its_ids_say_what_it_says():
    for hub_id, model in PUBLISHED.items():
        match = re.fullmatch(r"nvidia/segformer-(b\d)-finetuned-(ade|cityscapes)-(\d+)-(\d+)", hub_id)
        assert match.groups()[0] == model.variant and tuple(map(int, match.groups()[2:])) == model.size
        assert len(model.classes.names) == len(model.classes.palette) == {"ade": 150, "cityscapes": 19}[match[2]]
        assert published_model(hub_id) is published_model(model.alias) is model
        assert not hub.is_hub_id(model.alias) and hub.hub_id_of(model.alias) == hub_id
    assert len(ALIASES) == len(PUBLISHED)
    assert {f"{variant}-{dataset}" for variant in VARIANTS for dataset in ("ade20k", "cityscapes")} <= set(ALIASES)
    # Larger variants score higher, at one size.
    for dataset in ("ade20k", "cityscapes"):
        scores = [ALIASES[f"{variant}-{dataset}"].miou for variant in VARIANTS]
        assert scores == sorted(scores)


@pytest.mark.parametrize("wrong", [{"variant": "b9"}, {"size": (500, 512)}, {"miou": 37.4}])
def test_a_row_is_checked(wrong):
    with pytest.raises(UsageError):
        replace(ALIASES["b0-ade20k"], **wrong)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nvidia/segformer-b0-finetuned-ade-512", "nvidia/segformer-b0-finetuned-ade-512-512"),
        ("nvidia/segformer-b5-finetuned-ade-512-512", "nvidia/segformer-b5-finetuned-ade-640-640"),
        ("nvida/segformer-b3-finetuned-cityscape-1024-1024", "nvidia/segformer-b3-finetuned-cityscapes-1024-1024"),
        ("b0-ade", "b0-ade20k"),
        ("b0-cityscapes-512-1024", "b0-cityscapes-512x1024"),
        ("someone/segformer-b0-finetuned-ade-512-512", None),
        ("weights", None),
    ],
)
def test_what_a_slip_was_meant_to_be(name, expected):
    assert published_model(name) is None
    assert (f"'{expected}'" in meant(name)) if expected else meant(name) == ""


def lay_out(cache: Path, hub_id: str, folder: Path) -> Path:
    """The files of ``folder`` as the hub's cache keeps them: blobs by their sums, snapshots of links. The snapshot."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / REVISION
    for path in (repository / "blobs", repository / "refs", snapshot):
        path.mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    for path in folder.iterdir():
        content = path.read_bytes()
        blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The hub's cache, empty, and no network."""
    path = tmp_path / "home" / "hub"
    path.mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_notice_given", False)
    return path


@pytest.mark.parametrize(
    ("alias", "form", "preprocessor"),
    [
        ("b0-ade20k", "safetensors 4.x", {"size": 224}),
        ("b0-cityscapes-512x1024", "bin 4.x", {"size": {"height": 512, "width": 512}}),
        ("b1-cityscapes", "safetensors 5.x", None),
    ],
)
def test_a_cached_checkpoint_loads_by_id_by_alias_and_by_folder(
    cache, tmp_path, transformers_model, capsys, alias, form, preprocessor
):
    model = ALIASES[alias]
    table = class_table(model.dataset)
    theirs = transformers_model(model.variant, len(table.names))
    theirs.config.id2label = dict(enumerate(["bed " if name == "bed" else name for name in table.names]))
    folder = tmp_path / "saved"
    theirs.save_pretrained(folder, save_original_format="4.x" in form)
    if form.startswith("bin"):
        weights = folder / "model.safetensors"
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    snapshot = lay_out(cache, model.hub_id, folder)

    with torch.no_grad():
        expected = theirs(IMAGE).logits
    for source in (model.hub_id, alias, snapshot):
        loaded = load_checkpoint(source)
        assert loaded.source == (str(snapshot) if source is snapshot else model.hub_id)
        assert (loaded.variant, loaded.default_size) == (model.variant, model.size)
        assert loaded.class_names == table.names and loaded.palette == table.palette
        assert "non-commercial" in loaded.licence and form.split()[1] in loaded.layout
        with torch.no_grad():
            got = loaded.model(IMAGE)
        assert (got - expected).abs().max() <= 1e-5 * (expected.max() - expected.min())
    assert "non-commercial" in capsys.readouterr().err


def test_another_number_of_classes_keeps_its_own_names_and_size(cache, tmp_path, transformers_model):
    hub_id = ALIASES["b0-ade20k"].hub_id
    transformers_model("b0").save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "preprocessor_config.json").write_text('{"size": 96}')
    lay_out(cache, hub_id, tmp_path / "saved")
    loaded = load_checkpoint(hub_id)
    assert loaded.class_names[0] == "thing 0" and loaded.palette is None and loaded.default_size == (96, 96)


def test_a_folder_of_another_owner_is_what_it_says(cache, tmp_path, transformers_model):
    transformers_model("b0").save_pretrained(tmp_path / "saved")
    snapshot = lay_out(cache, "someone/segformer-b0-finetuned-ade-512-512", tmp_path / "saved")
    assert hub.cached_id(snapshot) == "someone/segformer-b0-finetuned-ade-512-512"
    loaded = load_checkpoint(snapshot)
    assert loaded.palette is None and "not stated" in loaded.licence
    assert hub.cached_id(tmp_path / "saved") is None


@pytest.mark.parametrize("name", ["b2-cityscapes", "nvidia/segformer-b2-finetuned-cityscapes-1024-1024"])
def test_offline_and_not_in_the_cache(cache, name):
    with pytest.raises(CheckpointError) as failed:
        load_checkpoint(name)
    message = str(failed.value)
    assert "'nvidia/segformer-b2-finetuned-cityscapes-1024-1024'" in message and f"'{cache}'" in message
    assert "HF_HUB_OFFLINE" in message and "Did you mean" not in message
    assert "hf download nvidia/segformer-b2-finetuned-cityscapes-1024-1024 --local-dir DIR" in message


def test_slips_are_told_with_the_error(cache):
    with pytest.raises(CheckpointError, match="Did you mean 'nvidia/segformer-b5-finetuned-ade-640-640'"):
        load_checkpoint("nvidia/segformer-b5-finetuned-ade-512-512")
    with pytest.raises(CheckpointError, match=r"no file or folder 'b0-ade'(.|\n)*Did you mean 'b0-ade20k'"):
        load_checkpoint("b0-ade")
    with pytest.raises(CheckpointError, match="Give a"):
        load_checkpoint("runs/b0-ade.pth")


def test_a_slip_is_told_where_the_hub_does_not_know_the_id(monkeypatch):
    def snapshot_download(hub_id, **_):
        raise HFValidationError("no such repository")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(
        CheckpointError, match=r"no such repository(.|\n)*Did you mean 'nvidia/segformer-b5-.*-640-640'"
    ):
        load_checkpoint("nvidia/segformer-b5-finetuned-ade-512-512")
    with pytest.raises(CheckpointError, match="hf auth login"):
        load_checkpoint("someone/private")


def test_a_bin_is_found_where_only_it_was_fetched(monkeypatch, tmp_path, transformers_model):
    """Without a network the hub's client refuses a snapshot that lacks the safetensors its listing names."""
    torch.save(transformers_model("b0").state_dict(), tmp_path / "pytorch_model.bin")

    def snapshot_download(hub_id, allow_patterns):
        if "pytorch_model*.bin" not in allow_patterns:
            raise LocalEntryNotFoundError("incomplete")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load_checkpoint("someone/old").variant == "b0"


def test_a_local_folder_goes_before_an_alias(monkeypatch, tmp_path, state, cache):
    (tmp_path / "b0-ade20k").mkdir()
    torch.save(state, tmp_path / "b0-ade20k" / "w.pth")
    monkeypatch.chdir(tmp_path)
    assert len(load_checkpoint("b0-ade20k").class_names) == 7


def test_the_command_lists_the_table(capsys):
    assert run(main, ["--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["hub_id"] for row in rows] == list(PUBLISHED)
    assert all(np.array(row["palette"]).shape == (len(row["class_names"]), 3) for row in rows)
    assert run(main, []) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*PUBLISHED, *ALIASES)) and "non-commercial" in shown
    assert run(main, ["--jsn"]) == 2 and "Did you mean '--json'" in capsys.readouterr().err
