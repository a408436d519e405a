"""The deployed graph computes what the reference does, in float32."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from quantization.sites import named_sites, named_weights
from segformer_edge.errors import UsageError
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.rewrite.graph import EdgeSegFormer

SIZES = [(64, 64), (32, 160), (96, 32), (64, 224), (128, 96)]


@pytest.fixture(scope="module", params=["b0", "b1"])
def pair(request, build):
    model = build(request.param, torch.float32)
    return model, EdgeSegFormer(model)


@pytest.fixture(scope="module")
def small(build):
    return build("b0", torch.float32, depths=(1, 1, 1, 1))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@torch.no_grad()
def test_float32_network_equals_the_reference(pair, size, image, difference):
    model, edge = pair
    x = image(*size, batch=2, dtype=torch.float32)
    got = edge(x)
    assert got.shape == (2, model.config.num_classes, size[0] // 4, size[1] // 4)
    assert difference(got, model(x)) <= 1e-5


@pytest.mark.parametrize("variant", ["b0", "b1"])
@torch.no_grad()
def test_float64_network_equals_the_reference(build, variant, image, difference):
    model, x = build(variant), image(96, 64)
    assert difference(EdgeSegFormer(model)(x), model(x)) <= 1e-10


@torch.no_grad()
def test_float32_network_equals_transformers(tmp_path, image, difference):
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = transformers.SegformerConfig(num_labels=4, initializer_range=0.1)
        theirs = transformers.SegformerForSemanticSegmentation(config).eval()
    theirs.save_pretrained(tmp_path)
    x = image(64, 96, dtype=torch.float32)
    assert difference(EdgeSegFormer(load_checkpoint(tmp_path).model)(x), theirs(x).logits) <= 1e-5


@torch.no_grad()
def test_labels_are_the_argmax_of_the_logits(pair, image):
    model, edge = pair
    x = image(64, 96, batch=2, dtype=torch.float32)
    labels = EdgeSegFormer(model, output="labels")(x)
    assert labels.dtype == torch.uint8
    assert labels.unique().numel() > 1
    assert torch.equal(labels.long(), edge(x).argmax(1))


def test_unknown_output_form_is_refused_by_name(small):
    with pytest.raises(UsageError, match=r"'logits' or 'labels'.*'masks'"):
        EdgeSegFormer(small, output="masks")


@pytest.mark.parametrize("size", [(64, 48), (33, 64), (16, 32)])
def test_size_not_divisible_by_32_is_refused(small, size):
    with pytest.raises(UsageError, match=f"{size[0]}x{size[1]}.*32"):
        EdgeSegFormer(small)(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("output", ["logits", "labels"])
def test_given_model_is_left_as_it_was(small, output):
    before = copy.deepcopy(small.state_dict())
    edge = EdgeSegFormer(small, output)
    with torch.no_grad():
        for parameter in edge.parameters():
            parameter.zero_()  # nothing is shared either
    after = small.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_graph_is_convolutions_and_ready_for_inference(pair):
    edge = pair[1]
    assert not edge.training
    assert not any(
        isinstance(module, nn.Linear | nn.LayerNorm | nn.BatchNorm2d | nn.Dropout) for module in edge.modules()
    )


def test_full_resolution_logits_never_appear(small, image):
    x = image(64, 64, dtype=torch.float32)
    for output in ("logits", "labels"):
        graph = torch.export.export(EdgeSegFormer(small, output), (x,)).graph
        values = [node.meta.get("val") for node in graph.nodes if node.op == "call_function"]
        shapes = [value.shape for value in values if isinstance(value, torch.Tensor) and value.dim() == 4]
        logits = [shape for shape in shapes if shape[1] == small.config.num_classes]
        assert logits and all(shape[-1] == 16 for shape in logits)


def test_every_weight_and_site_has_a_name_and_a_role(pair):
    edge = pair[1]
    names = [name for name, _ in named_sites(edge)]
    assert "image" in names and "decode_head.classifier.output" in names
    assert all(site.role for _, site in named_sites(edge))
    assert {name for name, module in edge.named_modules() if isinstance(module, nn.Conv2d)} == dict(
        named_weights(edge)
    ).keys()
