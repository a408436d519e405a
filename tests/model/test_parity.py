"""Our SegFormer computes what transformers' does, at random weights."""

from __future__ import annotations

import pytest
import torch

from segformer_edge.errors import UsageError
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.model.config import VARIANTS, variant_config
from segformer_edge.model.segformer import SegFormer

SIZES = [(64, 64), (96, 160), (128, 64), (224, 32), (32, 192), (160, 224)]


@pytest.fixture(scope="module", params=["b0", "b1"])
def pair(request, transformers_model, tmp_path_factory):
    theirs = transformers_model(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return theirs, load_checkpoint(folder).model


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_logits_are_those_of_transformers(pair, size):
    theirs, ours = pair
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(sum(size)))
    with torch.no_grad():
        expected, got = theirs(image).logits, ours(image)
    assert got.shape == expected.shape == (2, 7, size[0] // 4, size[1] // 4)
    spread = (expected.max() - expected.min()).item()
    assert spread > 1
    difference = (got - expected).abs().max().item() / spread
    print(f"difference / range: {difference:.1e}")
    assert difference <= 1e-5


def test_stage_features_are_those_of_transformers(pair):
    theirs, ours = pair
    image = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = theirs(image, output_hidden_states=True).hidden_states
        got = ours.features(image)
    assert len(got) == 4
    for index, (a, b) in enumerate(zip(got, expected[-4:], strict=True)):
        assert a.shape[2:] == (96 >> (2 + index), 64 >> (2 + index))
        assert (a - b).abs().max() <= 1e-5 * (b.max() - b.min())


#: Parameters in millions with ADE20K's 150 classes: the paper's table 1, encoder plus decoder.
PAPER = {"b0": 3.8, "b1": 13.7, "b2": 27.5, "b3": 47.3, "b4": 64.1, "b5": 84.7}


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_count_is_the_papers(variant):
    with torch.random.fork_rng(devices=[]):
        model = SegFormer(variant_config(variant, 150))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(PAPER[variant], abs=0.1)


@pytest.mark.parametrize("size", [(64, 48), (33, 64), (16, 32)])
def test_size_not_divisible_by_32_is_refused(reference, size):
    with pytest.raises(UsageError, match=f"{size[0]}x{size[1]}"):
        reference(torch.zeros(1, 3, *size))


def test_epsilon_follows_its_role():
    import dataclasses

    config = dataclasses.replace(variant_config("b0", 3), norm_eps=1e-6)
    stage = SegFormer(config).stages[0]
    block = stage.blocks[0]
    assert {block.norm1.eps, block.norm2.eps, stage.norm.eps} == {1e-6}
    assert {stage.patch_embedding.norm.eps, block.attention.reduction.norm.eps} == {1e-5}
