"""A short training run: its loss falls, a killed run resumes to the same numbers, the weights are written whole."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from segformer_edge.data.demo import DemoScenes
from segformer_edge.data.scenes import DEVELOPMENT_SEEDS, TRAINING_SEEDS
from segformer_edge.errors import CheckpointError, SegformerEdgeError, UsageError
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.model.config import variant_config
from segformer_edge.model.initialise import initialise
from segformer_edge.model.segformer import SegFormer
from segformer_edge.train import main
from segformer_edge.training.folded_head import FoldedHeadTraining
from segformer_edge.training.loop import train
from segformer_edge.training.recipe import Recipe
from segformer_edge.training.state import load_state, save_state
from segformer_edge.training.task import FloatTask, parameter_groups
from segformer_edge.training.validate import predict


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def short_recipe(**values) -> Recipe:
    return Recipe(
        **{
            "name": "short",
            "steps": 12,
            "batch": 4,
            "learning_rate": 1e-3,
            "head_factor": 1.0,
            "warmup_steps": 2,
            "average_decay": 0.5,
            "drop_path": 0.1,
            "checkpoint_every": 4,
            "validate_every": 6,
            "workers": 0,
            "phases": [{"until": 1.0, "crop": 64, "resize": [0.9, 1.1]}],
            **values,
        }
    )


def small_model(recipe: Recipe, classes: int = 8) -> SegFormer:
    torch.manual_seed(0)
    model = SegFormer(variant_config("b0", classes), recipe.drop_path, recipe.dropout)
    initialise(model)
    return model


SCENES = DemoScenes(TRAINING_SEEDS[:8], (64, 64))
VALIDATION = DemoScenes(DEVELOPMENT_SEEDS[:2], (64, 64))


def losses(folder) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


class KilledError(Exception):
    pass


def test_initialisation_follows_the_paper():
    model = small_model(short_recipe())
    assert model.stages[3].blocks[0].ffn.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.stages[0].patch_embedding.proj.weight.std().item() == pytest.approx((2 / (49 * 32)) ** 0.5, rel=0.05)
    assert (model.stages[0].norm.weight == 1).all() and (model.stages[0].norm.bias == 0).all()
    assert (model.stages[0].blocks[0].attention.q.bias == 0).all()


def test_folded_head_is_the_paper_s_head_with_its_gradients():
    torch.manual_seed(1)
    model = SegFormer(variant_config("b0", 5), drop_path=0.0, dropout=0.0).double()
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    grads = []
    for network in (model, FoldedHeadTraining(model)):
        network.zero_grad()
        logits = network(image)
        logits.square().mean().backward()
        grads.append((logits.detach(), [p.grad.clone() for p in model.parameters()]))
    (plain, plain_grads), (folded, folded_grads) = grads
    assert (plain - folded).abs().max() <= 1e-10 * plain.abs().max()
    # Before BatchNorm a bias's gradient is 0 up to rounding: compare with the largest of all.
    largest = max(g.abs().max() for g in plain_grads)
    for a, b in zip(plain_grads, folded_grads, strict=True):
        assert (a - b).abs().max() <= 1e-9 * largest


def test_parameter_groups():
    recipe = short_recipe(head_factor=10.0)
    model = small_model(recipe)
    groups = parameter_groups(model, recipe)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in groups:
        assert (group["weight_decay"] == 0) == all(p.ndim == 1 for p in group["params"])
    assert {group["peak"] for group in groups} == {1e-3, 1e-2}


def test_loss_falls_and_a_killed_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    recipe = short_recipe()
    whole = train(
        FloatTask(small_model(recipe), recipe), SCENES, recipe, tmp_path / "whole", val_set=VALIDATION, cpu=True
    )
    assert whole.steps == 12 and 0 <= whole.best_miou <= 1
    assert whole.last_loss < 0.9 * np.log(8)

    from segformer_edge.training import loop

    learn = loop._Run.learn

    def die_at_seven(self, *batch):
        if self.step == 7:
            raise KilledError
        return learn(self, *batch)

    monkeypatch.setattr(loop._Run, "learn", die_at_seven)
    with pytest.raises(KilledError):
        train(FloatTask(small_model(recipe), recipe), SCENES, recipe, tmp_path / "parts", val_set=VALIDATION, cpu=True)
    monkeypatch.setattr(loop._Run, "learn", learn)
    assert load_state(tmp_path / "parts")["step"] == 4
    resumed = train(
        FloatTask(small_model(recipe), recipe),
        SCENES,
        recipe,
        tmp_path / "parts",
        val_set=VALIDATION,
        resume=True,
        cpu=True,
    )
    assert resumed.last_loss == pytest.approx(whole.last_loss, rel=1e-5)
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

    other = short_recipe(learning_rate=2e-3)
    with pytest.raises(UsageError, match="another recipe or seed"):
        train(FloatTask(small_model(other), other), SCENES, other, tmp_path / "parts", resume=True, cpu=True)


def test_classes_must_match(tmp_path):
    recipe = short_recipe()
    with pytest.raises(UsageError, match="8 classes, the model 3"):
        train(FloatTask(small_model(recipe, 3), recipe), SCENES, recipe, tmp_path, cpu=True)


def test_diverged_run_stops(tmp_path):
    recipe = short_recipe(steps=2)
    model = small_model(recipe)
    with torch.no_grad():
        model.decode_head.classifier.weight.fill_(float("nan"))
    with pytest.raises(SegformerEdgeError, match="not a number at step 1"):
        train(FloatTask(model, recipe), SCENES, recipe, tmp_path, cpu=True)


@pytest.mark.parametrize("content", [b"", b"not a state", None])
def test_damaged_state(tmp_path, content):
    if content is None:
        torch.save([1, 2], tmp_path / "state.pt")
    else:
        (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        load_state(tmp_path)


def test_state_is_replaced_as_a_whole(tmp_path, monkeypatch):
    save_state(tmp_path, {"step": 1})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_state(tmp_path, {"step": 2})
    assert load_state(tmp_path) == {"step": 1}


def test_predict_takes_any_image_size():
    model = small_model(short_recipe()).eval()
    labels = predict(model, np.zeros((50, 77, 3), np.uint8), torch.device("cpu"))
    assert labels.shape == (50, 77) and labels.dtype == np.uint8 and labels.max() < 8


RECIPE = """
name = "tiny"
steps = 400
batch = 2
warmup_steps = 1
checkpoint_every = 2
validate_every = 1000
workers = 0
phases = [{ until = 1.0, crop = 32 }]
"""


def test_command_survives_a_kill(tmp_path):
    """SIGKILL in the middle, then --resume; the weights load and their header tells what they are."""
    from safetensors import safe_open

    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "segformer_edge.train", "--recipe", str(tmp_path / "tiny.toml"), "--val", "none"]
    command += ["--data", "demo:calibration", "--out", str(out), "--threads", "1", "--cpu", "--float16", "--json"]
    process = subprocess.Popen([*command, "--steps", "400"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = load_state(out)["step"]
    assert 2 <= step < 400
    with pytest.raises(UsageError, match="not empty"):
        main(command[3:])
    # Shorten what is left: the same run, told that it is nearly over.
    state = load_state(out)
    state["step"] = 398
    save_state(out, state)
    done = subprocess.run([*command, "--steps", "400", "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == 400
    with safe_open(result["weights"], "pt") as file:
        header = file.metadata()
        assert header["format"] == "segformer_edge" and header["schema"] == "1" and header["model"] == "b0"
        assert json.loads(header["class_names"])[0] == "sky"
        assert all(file.get_tensor(key).dtype == torch.float16 for key in file.keys())  # noqa: SIM118


def test_command_trains_and_scores_mapped_classes(tmp_path, capsys):
    """Weights for merged classes, started from another checkpoint's rows: the table's classes are what is written."""
    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    table = tmp_path / "map.csv"
    rows = ["sky,sky,sky", *(f"{name},land,{name}" for name in ("ground", "road", "water")), "building,ignore,"]
    rows += [f"{name},thing,{name}" for name in ("tree", "vehicle", "person")]
    table.write_text("\n".join(["source,target,init", *rows]))
    out = tmp_path / "out"
    command = ["--recipe", str(tmp_path / "tiny.toml"), "--data", "demo:calibration", "--val", "none", "--cpu"]
    command += ["--steps", "1", "--init", "demo", "--class-map", str(table), "--out", str(out), "--json"]
    assert main(command) == 0
    written, start = load_checkpoint(out / "model.safetensors"), load_checkpoint("demo")
    assert written.class_names == ("sky", "land", "thing")
    old, new = start.model.decode_head.classifier.weight, written.model.decode_head.classifier.weight
    assert (new[0] - old[0]).abs().max() < 0.01 and (new[1] - old[1:4].mean(0)).abs().max() < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "--steps"),
        (["--threads", "0"], "--threads"),
        (["--seed", "-1"], "--seed"),
        (["--recipe", "dmo"], "Did you mean 'demo'"),
        (["--data", "camvd:x"], "Did you mean 'camvid'"),
        (["--size", "250"], "divisible by 32"),
        (["--model", "b9"], "b9"),
        (["--lerning", "1"], "lerning"),
        (["--resume"], r"nothing to resume in .*out: it has no state\.pt"),
    ],
)
def test_command_refuses_bad_options_before_it_writes(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        main(["--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_without_out_the_command_names_itself_as_it_is_called():
    with pytest.raises(UsageError, match=r"--out(.|\n)*See: python -m segformer_edge\.train --help"):
        main([])
