"""Random SegFormers in float64 whose norms are not 1 and 0, which would hide a wrong fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from segformer_edge.model.config import variant_config
from segformer_edge.model.segformer import SegFormer

CLASSES = 6
Build = Callable[..., SegFormer]


def randomise(model: nn.Module) -> None:
    """Give every norm random weight, bias and statistics."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.2, 2.0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def build() -> Build:
    """Builds a variant at random weights; a model is a test's own, free to be rewritten."""

    def make(
        variant: str = "b0", dtype: torch.dtype = torch.float64, depths: tuple[int, ...] | None = None
    ) -> SegFormer:
        config = variant_config(variant, CLASSES)
        if depths is not None:
            config = dataclasses.replace(config, depths=depths)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            model = SegFormer(config)
            randomise(model)
        return model.to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def image() -> Callable[..., Tensor]:
    """Makes a random batch of a size."""

    def make(height: int, width: int, batch: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
        generator = torch.Generator().manual_seed(height * 1000 + width)
        return torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)

    return make


@pytest.fixture(scope="session")
def difference() -> Callable[[Tensor, Tensor], float]:
    """Largest absolute difference relative to the range of the expected output."""

    def measure(got: Tensor, expected: Tensor) -> float:
        assert got.shape == expected.shape
        spread = (expected.max() - expected.min()).item()
        assert spread > 0.1  # the network says something
        return (got - expected).abs().max().item() / spread

    return measure
