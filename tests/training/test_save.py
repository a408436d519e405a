"""Our checkpoint format: what the header says, what is refused, and that nothing half-written stays."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from segformer_edge.errors import CheckpointError
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.model.config import SegformerConfig, variant_config
from segformer_edge.model.save import save_checkpoint
from segformer_edge.model.segformer import SegFormer

LABELS = {"class_names": ("sky", "road"), "palette": [(1, 2, 3), (4, 5, 6)]}
DETAILS = {"size": (64, 96), "source": "a test", "licence": "Apache-2.0", **LABELS}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SegFormer(variant_config("b0", 2)).eval()


def test_round_trip_through_the_loader(model, tmp_path):
    path = tmp_path / "new" / "weights.safetensors"
    save_checkpoint(model, path, extra={"val_miou": "0.9"}, **DETAILS)
    loaded = load_checkpoint(path)
    assert (loaded.variant, loaded.class_names, loaded.native_size) == ("b0", ("sky", "road"), (64, 96))
    assert loaded.palette == ((1, 2, 3), (4, 5, 6)) and loaded.licence == "Apache-2.0"
    expected = {k: v.half().float() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    for key, value in expected.items():
        assert torch.equal(loaded.model.state_dict()[key], value), key
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(expected)
        assert file.metadata()["val_miou"] == "0.9" and file.metadata()["size"] == "64x96"
        assert json.loads(file.metadata()["class_names"]) == ["sky", "road"]


def test_values_that_float16_cannot_hold_are_refused(model, tmp_path):
    with torch.no_grad():
        model.decode_head.fuse.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"decode_head\.fuse\.weight"):
        save_checkpoint(model, tmp_path / "w.safetensors", **DETAILS)
    save_checkpoint(model, tmp_path / "w.safetensors", dtype=torch.float32, **DETAILS)


def test_names_and_colours_must_fit_the_classes(model, tmp_path):
    with pytest.raises(CheckpointError, match="1 colours for 2"):
        save_checkpoint(model, tmp_path / "w.safetensors", **{**DETAILS, "palette": [(1, 2, 3)]})
    odd = SegFormer(SegformerConfig(num_classes=2, depths=(1, 1, 1, 1)))
    with pytest.raises(CheckpointError, match="none of b0 to b5"):
        save_checkpoint(odd, tmp_path / "w.safetensors", **DETAILS)


def test_failed_write_leaves_nothing_and_keeps_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")

    def fill_the_disk(target, data):
        target.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill_the_disk)
        with pytest.raises(OSError, match="No space"):
            save_checkpoint(model, path, **DETAILS)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"] and path.read_bytes() == b"old"
