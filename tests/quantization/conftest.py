"""A small network of sites, a tiny SegFormer, and both calibrated."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.calibration import calibrate
from quantization.encodings import encodings_of
from quantization.recipe import Recipe, load_recipe
from quantization.sites import QuantConv2d, Site
from segformer_edge.model.config import variant_config
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer


class Net(nn.Module):
    """Two convolutions, a softmax with fixed parameters, a residual add."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.image = Site("image")
            self.first = QuantConv2d("first", nn.Conv2d(3, 8, 3, padding=1))
            self.probabilities = Site("probabilities", fixed=(1.0 / 256.0, -128))
            self.second = QuantConv2d.from_linear("second", nn.Linear(8, 8))
            self.residual = Site("residual")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(self.image(x)))
        return self.residual(x + self.second(self.probabilities(x.softmax(1))))


ALL_INT8 = Recipe(
    "all_int8",
    sites=dict.fromkeys(("image", "first", "probabilities", "second", "residual"), "int8"),
    weights={"first": "int8", "second": "int8"},
)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def batch() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def net_again() -> Net:
    """The same weights, not calibrated."""
    return Net()


@pytest.fixture
def other_net() -> Net:
    """The same layers with other weights."""
    return Net(seed=1)


@pytest.fixture
def all_int8() -> Recipe:
    return ALL_INT8


@pytest.fixture
def calibrated(net: Net, batch: Tensor) -> Net:
    calibrate(net, [batch, batch * 0.5], ALL_INT8)
    return net


@pytest.fixture(scope="session")
def net_and_encodings(batch: Tensor) -> tuple[Net, dict, Tensor]:
    """A network for fuzzing, its own encodings, and an input."""
    model = Net()
    calibrate(model, [batch], ALL_INT8)
    return model, encodings_of(model, "all_int8"), batch


def tiny_edge() -> EdgeSegFormer:
    """A SegFormer with B0's widths and one block a stage, at random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return EdgeSegFormer(SegFormer(dataclasses.replace(variant_config("b0", 5), depths=(1, 1, 1, 1))))


@pytest.fixture
def edge() -> EdgeSegFormer:
    return tiny_edge()


@pytest.fixture(scope="session")
def pictures() -> Tensor:
    return torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(6))


@pytest.fixture(scope="session")
def quantized_edge(pictures: Tensor) -> EdgeSegFormer:
    """Calibrated with the recipe for CPUs on the first two pictures; tests must not change it."""
    model = tiny_edge()
    calibrate(model, pictures[:2].split(1), load_recipe("mixed"))
    return model
