"""Every rewrite alone and all together compute what the reference does, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from segformer_edge.model.segformer import AllMLPHead, EfficientSelfAttention
from segformer_edge.rewrite import (
    FoldedHead,
    RmsNorm,
    centre_residual_streams,
    fold_attention_scale,
    fold_head,
    fold_layer_norm_affine,
    rewrite_exactly,
)
from segformer_edge.rewrite.layer_norm import absorbed, centred


def fold_and_centre(model):
    return centre_residual_streams(fold_layer_norm_affine(model))


REWRITES = [fold_head, fold_attention_scale, fold_layer_norm_affine, fold_and_centre, rewrite_exactly]


@pytest.fixture(scope="module", params=["b0", "b1"])
def case(request, build, image):
    """A model, an image and what the model makes of it."""
    model, x = build(request.param), image(64, 96, batch=2)
    with torch.no_grad():
        return model, x, model(x)


@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda rewrite: rewrite.__name__)
@torch.no_grad()
def test_rewrite_is_exact_in_float64(case, rewrite, difference):
    model, x, expected = case
    got = rewrite(copy.deepcopy(model))(x)
    assert got.dtype == torch.float64
    assert difference(got, expected) <= 1e-10


def test_features_of_every_stage_survive_all_rewrites(case, difference):
    model, x, _ = case
    with torch.no_grad():
        for got, expected in zip(rewrite_exactly(model).features(x), model.features(x), strict=True):
            assert difference(got, expected) <= 1e-10


def test_head_fold_leaves_no_fuse_and_no_concatenation(case):
    model, x, _ = case
    dim = model.config.decoder_dim
    folded = fold_head(copy.deepcopy(model))
    assert isinstance(folded.decode_head, FoldedHead)
    assert not any(isinstance(module, AllMLPHead | nn.BatchNorm2d) for module in folded.modules())
    assert all(p.shape[1] != 4 * dim for p in folded.decode_head.parameters() if p.dim() > 1)
    graph = torch.export.export(folded.decode_head, (folded.features(x),)).graph
    assert not [node for node in graph.nodes if "cat" in str(node.target)]
    assert all(node.meta["val"].shape[1] < 4 * dim for node in graph.nodes if node.op == "call_function")


def test_stages_keep_their_own_slice_of_the_fuse_weight(build, image, difference):
    """The published order is deepest first; a head folded in another order must differ."""
    model, x = build(), image(64, 64)
    with torch.no_grad():
        expected = model(x)
        dim = model.config.decoder_dim
        model.decode_head.fuse.weight.copy_(torch.cat(model.decode_head.fuse.weight.split(dim, 1)[::-1], 1))
        assert difference(fold_head(model)(x), expected) > 1e-3


def test_attention_scale_becomes_one(case):
    folded = fold_attention_scale(copy.deepcopy(case[0]))
    assert {module.scale for module in folded.modules() if isinstance(module, EfficientSelfAttention)} == {1.0}


def test_attention_scale_folds_once_however_often_it_is_called(case, difference):
    model, x, expected = case
    with torch.no_grad():
        assert difference(fold_attention_scale(fold_attention_scale(copy.deepcopy(model)))(x), expected) <= 1e-10


def test_affine_fold_leaves_only_stage_and_embedding_norms_with_an_affine_part(case):
    folded = fold_layer_norm_affine(copy.deepcopy(case[0]))
    kept = [
        name
        for name, module in folded.named_modules()
        if isinstance(module, nn.LayerNorm) and not ((module.weight == 1).all() and (module.bias == 0).all())
    ]
    assert kept == [f"stages.{i}.{norm}" for i in range(4) for norm in ("patch_embedding.norm", "norm")]


def test_centring_leaves_no_layer_norm(case):
    model = fold_and_centre(copy.deepcopy(case[0]))
    assert not any(isinstance(module, nn.LayerNorm) for module in model.modules())
    norms = [module for module in model.modules() if isinstance(module, RmsNorm)]
    assert sum(norm.weight is not None for norm in norms) == 4  # the stage norms


@torch.no_grad()
def test_residual_streams_have_channel_mean_zero(case):
    reference, x, _ = case
    model, streams = fold_and_centre(copy.deepcopy(reference)), []
    for stage in model.stages:
        stage.patch_embedding.register_forward_hook(lambda *args: streams.append(args[-1][0]))
        for block in stage.blocks:
            block.register_forward_hook(lambda *args: streams.append(args[-1]))
    model(x)
    assert len(streams) == 4 + sum(reference.config.depths)
    for stream in streams:
        assert stream.mean(-1).abs().max() <= 1e-12 * stream.abs().max()


def test_centring_before_the_affine_fold_is_refused(build):
    with pytest.raises(ValueError, match="fold_layer_norm_affine first"):
        centre_residual_streams(build(depths=(1, 1, 1, 1)))


def test_padded_convolution_cannot_absorb_a_shift():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    with pytest.raises(ValueError, match="padded convolution"):
        absorbed(conv, nn.LayerNorm(4))


@pytest.mark.parametrize("reader", [nn.Linear(5, 3), nn.Conv2d(5, 3, 2, 2)], ids=["linear", "convolution"])
@torch.no_grad()
def test_reader_absorbs_scale_and_shift(reader):
    reader, norm = copy.deepcopy(reader).double(), nn.LayerNorm(5).double()
    norm.weight.copy_(torch.rand(5))
    norm.bias.copy_(torch.randn(5))
    linear = isinstance(reader, nn.Linear)
    x = torch.randn(2, 7, 5).double() if linear else torch.randn(2, 5, 4, 4).double()
    shape = (5,) if linear else (5, 1, 1)
    expected = reader(x * norm.weight.view(shape) + norm.bias.view(shape))
    weight, bias = absorbed(reader, norm)
    reader.weight.copy_(weight)
    reader.bias.copy_(bias)
    torch.testing.assert_close(reader(x), expected, rtol=0, atol=1e-13)


@torch.no_grad()
def test_centred_writer_subtracts_the_channel_mean():
    writer, x = nn.Conv2d(3, 8, 3).double(), torch.randn(1, 3, 6, 6).double()
    expected = writer(x)
    weight, bias = centred(writer.weight, writer.bias)
    writer.weight.copy_(weight)
    writer.bias.copy_(bias)
    torch.testing.assert_close(writer(x), expected - expected.mean(1, keepdim=True), rtol=0, atol=1e-13)


def test_rewriting_leaves_the_given_model_as_it_was(build):
    model = build(dtype=torch.float32, depths=(1, 1, 1, 1)).train()
    before = copy.deepcopy(model.state_dict())
    folded = rewrite_exactly(model)
    assert model.training and not folded.training
    assert {p.dtype for p in folded.parameters()} == {torch.float32}
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert isinstance(model.decode_head, AllMLPHead)
