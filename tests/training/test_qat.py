"""Quantization-aware training: what it writes scores what it said, it resumes, and several processes agree with one."""

import json
import shutil
import subprocess
import sys

import cv2
import pytest
import torch

from quantization.encodings import apply_encodings, load_encodings
from quantization.sites import named_sites
from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.scenes import CLASS_NAMES, PALETTE, draw_scene
from segformer_edge.errors import CheckpointError, DataError, UsageError
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.model.config import variant_config
from segformer_edge.model.save import save_checkpoint
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.train import main
from segformer_edge.training import loop
from segformer_edge.training.log import read_log
from segformer_edge.training.validate import validate

RECIPE = {
    "name": "tiny",
    "steps": 4,
    "batch": 2,
    "learning_rate": 1e-3,
    "head_factor": 1.0,
    "warmup_steps": 1,
    "max_gradient_norm": 1.0,
    "drop_path": 0.0,
    "dropout": 0.0,
    "average_decay": 0.5,
    "validate_every": 2,
    "checkpoint_every": 2,
    "workers": 0,
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Four labelled scenes as a data set on disk, and its spec."""
    root = tmp_path_factory.mktemp("scenes")
    for name in ("images", "masks"):
        (root / name).mkdir()
    for seed in range(4):
        image, labels = draw_scene(seed, (64, 64))
        cv2.imwrite(str(root / "images" / f"{seed}.png"), image[:, :, ::-1])
        cv2.imwrite(str(root / "masks" / f"{seed}.png"), labels)
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES))
    return f"folder:{root}"


@pytest.fixture
def recipe(tmp_path):
    def write(**changes: object) -> str:
        lines = [f"{name} = {json.dumps(value)}" for name, value in {**RECIPE, **changes}.items()]
        path = tmp_path / "tiny.toml"
        path.write_text("\n".join([*lines, "phases = [{ until = 1.0 }]", "[qat]", "freeze_ranges_at = 0.5"]))
        return str(path)

    return write


def command(scenes: str, recipe: str, out, *more: str) -> list[str]:
    options = ["--qat", "--init", "demo", "--data", scenes, "--val", scenes, "--size", "64x64", "--recipe", recipe]
    return [*options, "--out", str(out), "--cpu", "--json", *more]


def test_what_is_written_scores_what_validation_said(scenes, recipe, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(scenes, recipe(), out)) == 0
    summary = json.loads(capsys.readouterr().out)
    network = EdgeSegFormer(load_checkpoint(out / "model.safetensors").model)
    apply_encodings(network, load_encodings(out / "encodings.json"))
    data = open_dataset(scenes)
    assert validate(network, data, size=(64, 64)).miou == summary["miou"][data.name]
    assert summary["miou"][data.name] >= summary["ptq_miou"]
    start = validate(load_checkpoint("demo").model, data, size=(64, 64)).miou
    assert summary["float_miou"] == pytest.approx(start, abs=1e-6)
    assert (out / "curve.png").stat().st_size > 1000
    assert [line["step"] for line in read_log(out / "log.jsonl") if "miou" in line] == [0, 2, 4]


def test_a_run_that_only_harms_keeps_its_start(scenes, recipe, tmp_path, capsys):
    """The calibrated start is the first candidate, and a run without gains ends early."""
    harmful = recipe(steps=40, learning_rate=1.0, validate_every=1, patience=2)
    assert main(command(scenes, harmful, tmp_path / "out")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["best_step"] == 0 and summary["steps"] < 40
    assert summary["miou"]["folder:" + scenes.rsplit("/", 1)[1]] == summary["ptq_miou"]


class KilledError(Exception):
    pass


def test_a_killed_run_resumes_to_the_same_numbers(scenes, recipe, tmp_path, monkeypatch, capsys):
    path = recipe(average_decay=0.9)
    main(command(scenes, path, tmp_path / "whole"))
    learn = loop._Run.learn

    def die_at_three(self, *batch):
        if self.step == 3:
            raise KilledError
        return learn(self, *batch)

    monkeypatch.setattr(loop._Run, "learn", die_at_three)
    with pytest.raises(KilledError):
        main(command(scenes, path, tmp_path / "parts"))
    monkeypatch.setattr(loop._Run, "learn", learn)
    main(command(scenes, path, tmp_path / "parts", "--resume"))
    whole, parts = (load_checkpoint(tmp_path / name / "model.safetensors").model for name in ("whole", "parts"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    assert load_encodings(tmp_path / "whole/encodings.json") == load_encodings(tmp_path / "parts/encodings.json")
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("whole", "parts")]
    assert [[(k, v) for k, v in line.items() if k != "seconds"] for line in logs[0]] == [
        [(k, v) for k, v in line.items() if k != "seconds"] for line in logs[1]
    ]
    with pytest.raises(UsageError, match="another recipe or seed"):
        main(command(scenes, path, tmp_path / "parts", "--resume", "--seed", "5"))


def test_ranges_and_scales_are_frozen_late(scenes, recipe, tmp_path, monkeypatch):
    seen = []
    learn = loop._Run.learn

    def watch(self, *batch):
        loss = learn(self, *batch)
        edge = self.plain_network.edge
        seen.append({n: b.clone() for n, b in edge.state_dict().items() if "log_ends" in n or "frozen" in n})
        return loss

    monkeypatch.setattr(loop._Run, "learn", watch)
    main(command(scenes, recipe(), tmp_path / "out", "--val", "none"))
    ends = [name for name in seen[0] if name.endswith("log_ends") and "probabilities" not in name]
    scales = [name for name in seen[0] if name.endswith("frozen")]
    assert any((seen[0][name] != seen[1][name]).any() for name in ends)
    assert all(torch.equal(seen[1][name], seen[3][name]) for name in ends)
    assert all((seen[1][name] == 0).all() and (seen[2][name] > 0).all() for name in scales)
    assert all(torch.equal(seen[2][name], seen[3][name]) for name in scales)


def test_integer_only_recipe_learns_its_int16_sites_too(scenes, recipe, tmp_path):
    out = tmp_path / "out"
    main(command(scenes, recipe(), out, "--quantization", "full", "--val", "none"))
    encodings = load_encodings(out / "encodings.json")
    network = EdgeSegFormer(load_checkpoint(out / "model.safetensors").model)
    apply_encodings(network, encodings)
    start = tmp_path / "start"
    main(command(scenes, recipe(learning_rate=1e-12), start, "--quantization", "full", "--val", "none"))
    before = load_encodings(start / "encodings.json")["activations"]
    wide = {name for name, entry in encodings["activations"].items() if entry["dtype"] == "int16"}
    fixed = {name for name, site in named_sites(network) if site.fixed is not None}
    assert wide
    moved = {name for name in wide - fixed if encodings["activations"][name] != before[name]}
    assert len(moved) > 0.9 * len(wide - fixed)


def test_two_processes_give_the_loss_of_one(scenes, recipe, tmp_path):
    """The loss is normalised by the whole batch's labelled pixels, which differ between the two halves.

    With a small learning rate: where the weights differ by 1e-6, a rounding that flips moves this loss by 1e-3.
    """
    path = recipe(batch=4, resize=[0.3, 1.5], learning_rate=1e-5)
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
    losses = []
    for name, start in (("one", ["-m"]), ("two", launch)):
        run = [sys.executable, *start, "segformer_edge.train", *command(scenes, path, tmp_path / name, "--val", "none")]
        done = subprocess.run([*run, "--threads", "1"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (mean,) = (line["loss"] for line in read_log(tmp_path / name / "log.jsonl") if "loss" in line)
        losses.append((json.loads(done.stdout)["loss"], mean))
        assert (tmp_path / name / "encodings.json").exists()
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quantization", "mixd"], "Did you mean 'mixed'"),
        (["--encodings", "missing.json"], "missing.json"),
        (["--encodings", "missing.json", "--quantization", "mixed"], "leave out"),
        (["--calibration", "missing"], "missing"),
        (["--size", "60x64"], "divisible by 32"),
        (["--init", "missing"], "missing"),
        (["--model", "b1"], "not b1"),
    ],
)
def test_bad_options(scenes, recipe, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        main(command(scenes, recipe(), tmp_path / "out", *options))


def test_qat_options_need_qat_and_a_start(scenes, tmp_path):
    with pytest.raises(UsageError, match="Add --qat"):
        main(["--encodings", "a.json", "--out", str(tmp_path / "out")])
    with pytest.raises(UsageError, match="--init"):
        main(["--qat", "--data", scenes, "--out", str(tmp_path / "out")])


def test_encodings_of_another_model_are_refused(scenes, recipe, tmp_path):
    out = tmp_path / "out"
    main(command(scenes, recipe(steps=1), out, "--val", "none"))
    with pytest.raises(UsageError, match="made for other weights"):
        main(command(scenes, recipe(), tmp_path / "next", "--encodings", str(out / "encodings.json")))
    again = command(scenes, recipe(steps=1), tmp_path / "next", "--encodings", str(out / "encodings.json"))
    assert main([*again, "--init", str(out / "model.safetensors")]) == 0


def test_data_of_other_classes_is_refused(recipe, scenes, tmp_path):
    model = SegFormer(variant_config("b0", 3, ("a", "b", "c")))
    path = tmp_path / "three.safetensors"
    save_checkpoint(model, path, size=(64, 64), palette=PALETTE[:3], source="random", licence="none")
    with pytest.raises(UsageError, match="3 classes"):
        main(command(scenes, recipe(), tmp_path / "out", "--init", str(path)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_label_outside_the_classes_is_named_without_a_traceback(scenes, recipe, tmp_path, workers):
    root = tmp_path / "bad"
    shutil.copytree(scenes.removeprefix("folder:"), root)
    for path in (root / "masks").iterdir():
        labels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        labels[3, 4] = 77
        cv2.imwrite(str(path), labels)
    images = str(root / "images")
    options = command(
        f"folder:{root}", recipe(workers=workers), tmp_path / "out", "--val", "none", "--calibration", images
    )
    with pytest.raises(DataError, match=r"holds the label 77 at row 3, column 4") as caught:
        main(options)
    assert "Traceback" not in str(caught.value)


def test_a_state_of_another_version_is_refused(scenes, recipe, tmp_path):
    out = tmp_path / "out"
    main(command(scenes, recipe(steps=2), out, "--val", "none"))
    state = torch.load(out / "state.pt", weights_only=True)
    state["network"].pop("model.stages.0.norm.weight")
    torch.save(state, out / "state.pt")
    with pytest.raises(UsageError, match="of another network"):
        main(command(scenes, recipe(steps=2), out, "--val", "none", "--resume"))


def test_few_calibration_images_are_warned_of(scenes, recipe, tmp_path, capsys):
    main(command(scenes, recipe(steps=1), tmp_path / "out", "--val", "none"))
    assert "only 4 calibration image(s)" in capsys.readouterr().err


def test_checkpoint_without_a_head_is_refused(scenes, recipe, tmp_path):
    from safetensors.torch import save_file

    encoder = {k: v for k, v in load_checkpoint("demo").model.state_dict().items() if k.startswith("stages.")}
    save_file(encoder, tmp_path / "encoder.safetensors")
    with pytest.raises(CheckpointError, match="no decode head"):
        main(command(scenes, recipe(), tmp_path / "out", "--init", str(tmp_path / "encoder.safetensors")))
