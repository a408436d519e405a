"""The sensitivity analysis against figures made another way, and the command around it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantization.params import fake_quantize
from quantization.recipe import load_recipe
from quantization.sites import named_sites, named_weights
from segformer_edge.cli import run
from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.metrics import agreement
from segformer_edge.errors import UsageError
from segformer_edge.evaluation import TorchSegmenter, evaluate
from segformer_edge.prepare import Prepared, QuantizeOptions, prepare
from segformer_edge.progress import Progress
from segformer_edge.report.sensitivity import Sensitivity
from segformer_edge.sensitivity import main
from segformer_edge.sensitivity_analysis import ComparedImage, analyse, kl_divergence, sensitivity_of

SIZE = (64, 96)


@pytest.fixture(scope="module")
def options(tiny_weights: Path, calibration_folder: Path, tiny_dataset: str) -> QuantizeOptions:
    torch.set_num_threads(1)
    return QuantizeOptions(
        Path("nowhere"), str(tiny_weights), size=SIZE, calibration=calibration_folder,
        dataset=open_dataset(tiny_dataset), sensitivity=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def prepared(options: QuantizeOptions) -> Prepared:
    return prepare(options, load_recipe("mixed"), Progress())


@pytest.fixture(scope="module")
def found(prepared: Prepared, options: QuantizeOptions) -> Sensitivity:
    return sensitivity_of(prepared, options, Progress())


def analysed(prepared: Prepared, *images: np.ndarray) -> Sensitivity:
    """Without labels."""
    original = TorchSegmenter(prepared.loaded.model, prepared.preprocessing)
    compared = [ComparedImage(image) for image in images]
    return analyse(prepared.network, original, compared, Progress(), model="b0", weights="tiny", recipe=prepared.recipe)


def test_everything_quantized_scores_what_evaluate_says(found, prepared, options):
    original = TorchSegmenter(prepared.loaded.model, prepared.preprocessing)
    chosen = [options.dataset[i] for i in (0, 2, 3)]  # three of four, evenly

    class Some(type(options.dataset)):  # type: ignore[misc]
        def __init__(self):
            self.name, self.class_names, self.palette = "some", options.dataset.class_names, options.dataset.palette

        def __len__(self):
            return len(chosen)

        def __getitem__(self, index):
            return chosen[index]

    exact = evaluate(original, Some(), keep_predictions=True)
    quantized = evaluate(
        TorchSegmenter(prepared.network, prepared.preprocessing), Some(), compare={"fp32": exact.predictions}
    )
    assert found.images == 3 and found.fp32_miou == exact.miou == 1.0
    assert found.whole.miou_drop == pytest.approx(exact.miou - quantized.miou, abs=1e-12)
    assert found.whole.agreement == pytest.approx(quantized.agreement["fp32"], abs=1e-12)
    assert found.dataset == options.dataset.name


def test_the_image_alone_is_a_float_network_on_a_quantized_image(found, prepared, options):
    """Made without any switching: the original model, fed what the image site would pass on."""
    site = prepared.network.image
    divergences, shares = [], []
    for i in (0, 2, 3):
        image = options.dataset[i].image
        batch = torch.from_numpy(prepared.preprocessing(image))
        with torch.inference_mode():
            exact = prepared.loaded.model(batch)
            near = prepared.loaded.model(fake_quantize(batch, site.params))
        divergences.append(kl_divergence(exact, near))
        segment = TorchSegmenter(prepared.loaded.model, prepared.preprocessing)
        coarse = TorchSegmenter(torch.nn.Sequential(site, prepared.loaded.model).eval(), prepared.preprocessing)
        shares.append(agreement(segment(image), coarse(image)))
    for parts in (found.roles, found.modules):
        row = next(part for part in parts if part.name == "image")
        assert row.alone.kl == pytest.approx(np.mean(divergences), rel=0.02)
        assert row.alone.agreement == pytest.approx(np.mean(shares), abs=0.002)
        assert row.weights_alone is None and row.activations_alone is None


def test_every_class_of_sites_and_every_stage_is_there_once_and_the_worst_is_first(found, prepared):
    active = {site.role for _, site in named_sites(prepared.network) if site.active}
    assert sorted(part.name for part in found.roles) == sorted(active)
    assert {part.name for part in found.modules} == {"image", *(f"stages.{i}" for i in range(4)), "decode_head"}
    weights = {conv.role for _, conv in named_weights(prepared.network) if conv.active}
    for parts in (found.roles, found.modules):
        drops = [part.alone.miou_drop for part in parts]
        assert drops == sorted(drops, reverse=True)
        for part in parts:
            halved = part.weights_alone is not None
            assert halved == (part.activations_alone is not None) == bool(part.weights and part.activations)
    assert {part.name for part in found.roles if part.weights} == weights
    assert max(part.alone.kl for part in found.roles) < found.whole.kl


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """A recipe that quantizes the activations of one role and the weights of another."""
    path = tmp_path / "two.toml"
    path.write_text('[sites]\ngelu = "int16"\n[weights]\nfc1 = "int8"\n')
    return path


def test_leaving_one_of_two_classes_out_is_quantizing_the_other(two_classes, options):
    two = prepare(options, load_recipe(two_classes), Progress())
    result = analysed(two, two.held_back[0])
    fc1, gelu = result.roles
    assert (fc1.name, gelu.name) == ("fc1", "gelu")
    assert gelu.activations == {"int16": 4} and gelu.weights == {}
    assert fc1.weights == {"int8": 4} and fc1.activations == {}
    assert fc1.alone == gelu.left_out and gelu.alone == fc1.left_out
    assert fc1.alone.kl > gelu.alone.kl > 0
    assert fc1.weights_alone is None and gelu.weights_alone is None


def test_without_labels_the_divergence_sorts(prepared):
    result = analysed(prepared, *prepared.held_back)
    assert result.fp32_miou is None and result.dataset is None and result.whole.miou_drop is None
    divergences = [part.alone.kl for part in result.roles]
    assert divergences == sorted(divergences, reverse=True) and divergences[0] > 0


def test_the_network_is_as_it_was(prepared, found):
    image = prepared.held_back[0]
    before = TorchSegmenter(prepared.network, prepared.preprocessing).logits(image)
    analysed(prepared, image)
    assert np.array_equal(TorchSegmenter(prepared.network, prepared.preprocessing).logits(image), before)


def test_a_recipe_of_int16_needs_no_special_case(options, tmp_path):
    full = prepare(options, load_recipe("full"), Progress())
    result = analysed(full, full.held_back[0])
    active = {site.role for _, site in named_sites(full.network) if site.active}
    assert {part.name for part in result.roles} >= active
    assert {width for part in result.roles for width in part.activations} == {"int8", "int16"}
    assert all(line.to == "int16" and line.has == "int8" for line in result.suggestions())


def test_few_images_are_warned_about(prepared, capsys):
    analysed(prepared, prepared.held_back[0])
    assert "warning: only 1 image" in capsys.readouterr().err


LOGITS = arrays(np.float64, (1, 4, 2, 3), elements=st.floats(-30, 30))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(LOGITS, LOGITS, st.floats(-50, 50))
def test_the_divergence_is_the_textbook_one(a, b, shift):
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (a, b))
    expected = (p * np.log(p / q)).sum(1).mean()
    assert kl_divergence(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, abs=1e-9)
    assert kl_divergence(torch.from_numpy(a), torch.from_numpy(a + shift)) == pytest.approx(0, abs=1e-9)


def command(tmp_path: Path, weights: Path, calibration: Path, *more: object) -> list[str]:
    options = ["--weights", weights, "--size", "64x96", "--calibration", calibration, "--out", tmp_path / "out"]
    return [str(option) for option in (*options, *more)]


def test_the_command_writes_two_files_and_suggests_lines_of_a_recipe(
    tmp_path, tiny_weights, calibration_folder, tiny_dataset, two_classes, capsys
):
    arguments = command(tmp_path, tiny_weights, calibration_folder, "--eval", tiny_dataset, "--images", 4)
    assert run(main, arguments) == 0
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["sensitivity.json", "sensitivity.png"]
    assert (out / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((out / "sensitivity.json").read_text())
    assert content["images"] == 4 and content["recipe"] == "mixed" and content["fp32_miou"] == 1.0
    text = capsys.readouterr().out
    assert all(part["name"] in text for part in content["roles"])
    lines = tomllib.loads(text[text.index("\n[") :])
    recipe = load_recipe("mixed")
    assert 1 <= sum(map(len, lines.values())) <= 3 and lines.keys() <= {"sites", "weights"}
    for table, roles in lines.items():
        for role, width in roles.items():
            assert getattr(recipe, table)[role] == "int8" and width == "float"

    # A second run asks; with --force it replaces its own files and touches no others.
    (out / "report.json").write_text("{}")
    assert run(main, arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert run(main, [*arguments, "--force", "--json", "--recipe", str(two_classes)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((out / "sensitivity.json").read_text()) and captured.err == ""
    assert sorted(path.name for path in out.iterdir()) == ["report.json", "sensitivity.json", "sensitivity.png"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--images", "0"], ["--images", "0"]),
        (["--size", "500"], ["500x500", "--size 512"]),
        (["--recipe", "mixt"], ["'mixt'", "Did you mean 'mixed'"]),
        (["--eval", "coco:somewhere"], ["coco"]),
        (["--eval", "demo"], ["5 classes", "8"]),
        (["--recipes", "mixed"], ["Did you mean '--recipe'"]),
    ],
)
def test_wrong_options_are_explained(tmp_path, tiny_weights, calibration_folder, capsys, more, words):
    assert run(main, command(tmp_path, tiny_weights, calibration_folder, *more)) == 2
    captured = capsys.readouterr()
    assert all(word in captured.err for word in words), captured.err
    assert captured.out == "" and list(tmp_path.iterdir()) == []


def test_a_recipe_that_quantizes_nothing(tmp_path, tiny_weights, calibration_folder, capsys):
    (tmp_path / "none.toml").write_text('[sites]\nimage = "float"\n')
    arguments = command(tmp_path, tiny_weights, calibration_folder, "--recipe", tmp_path / "none.toml")
    assert run(main, arguments) == 2
    assert "'none' quantizes nothing" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["none.toml"]


def test_no_images_is_a_usage_error(prepared):
    with pytest.raises(UsageError, match="at least one image"):
        analysed(prepared)


def test_quantize_writes_it_beside_the_files(run_quantize, tiny_weights):
    """With the argmax inside the graph too: the analysis compares the logits before it."""
    done = run_quantize(tiny_weights, SIZE, targets="onnx", output="labels", sensitivity=2)
    names = {path.name for path in done.out.iterdir()}
    assert {"model.onnx", "report.html", "report.json", "sensitivity.json", "sensitivity.png"} <= names
    content = json.loads((done.out / "sensitivity.json").read_text())
    assert content["images"] == 2 and content["fp32_miou"] is None and content["whole"]["kl"] > 0
    page = (done.out / "report.html").read_text()
    assert 'alt="Harm of each class of sites' in page
    assert done.report.precision is not None
    assert done.report.precision.count("weights", "int8") == len(done.encodings["weights"])
    assert done.report.precision.count("activations", "int8") == len(done.encodings["activations"])
