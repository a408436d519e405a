"""The bundled checkpoint: small, licensed, and as good on unseen scenes as its header says."""

import json
from importlib.resources import files

import pytest
import torch
from safetensors import safe_open

from segformer_edge.data.demo import DemoScenes
from segformer_edge.data.scenes import CLASS_NAMES, PALETTE, VALIDATION_SEEDS
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.training.recipe import load_recipe
from segformer_edge.training.validate import validate

FILE = files("segformer_edge") / "demo" / "b0_demo.safetensors"


def test_header_and_size():
    assert len(FILE.read_bytes()) <= 8 * 2**20
    with safe_open(str(FILE), "pt") as file:
        header = file.metadata()
        assert all(file.get_tensor(key).dtype == torch.float16 for key in file.keys())  # noqa: SIM118
    assert (header["format"], header["schema"], header["model"]) == ("segformer_edge", "1", "b0")
    assert (header["size"], header["licence"]) == ("256x256", "Apache-2.0")
    assert tuple(json.loads(header["class_names"])) == CLASS_NAMES
    assert json.loads(header["palette"]) == [list(colour) for colour in PALETTE]
    assert float(header["val_miou"]) >= 0.85 and header["val_set"] == "demo"
    recipe = load_recipe("demo")
    assert header["source"].startswith(f"recipe demo, {recipe.steps} steps on demo:train from random weights")


def test_accuracy_on_unseen_scenes():
    """24 of the 200 scenes: quick, and enough to see a checkpoint that does not belong to these scenes."""
    loaded = load_checkpoint("demo")
    score = validate(loaded.model, DemoScenes(VALIDATION_SEEDS[:24]))
    assert score.miou == pytest.approx(0.9, abs=0.06)
