"""The differentiable parameters are the deployed network's, and all weights of SegFormer learn through them."""

import pytest
import torch

from segformer_edge.model.config import variant_config
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.parameters import edge_parameters


def random_model(variant):
    torch.manual_seed(3)
    model = SegFormer(variant_config(variant, 5)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.decode_head.norm.running_mean.normal_()
        model.decode_head.norm.running_var.uniform_(0.5, 2.0)
    return model


@pytest.mark.parametrize("variant", ["b0", "b1"])
def test_they_are_those_of_the_rewritten_network(variant):
    model = random_model(variant)
    parameters, state = edge_parameters(model), EdgeSegFormer(model).state_dict()
    for name, value in parameters.items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=1e-10)
    # What does not follow from the weights: the constants of the norms' mean of squares.
    assert {name.rsplit(".", 2)[1] for name in state.keys() - parameters.keys()} == {"mean"}


def test_gradients_are_those_of_the_model():
    """Through the rewritten network every weight gets the gradient that it gets through SegFormer itself."""
    model = random_model("b0")
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    model(image).square().mean().backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    edge = EdgeSegFormer(model).requires_grad_(False)
    torch.func.functional_call(edge, edge_parameters(model), (image,)).square().mean().backward()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-7, atol=float(1e-9 * largest), msg=name)
