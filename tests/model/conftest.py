"""Random SegFormers, ours and transformers', and folders and files in every layout that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from segformer_edge.model.config import VARIANTS, variant_config
from segformer_edge.model.segformer import SegFormer

CLASSES = 7


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give every norm random weights and statistics: as built they are 1 and 0 and would hide an exchanged pair."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.2, 2.0, generator=generator)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def transformers_model() -> Callable[..., nn.Module]:
    """Builds transformers' SegFormer of a variant, at random weights."""
    import transformers

    def build(variant: str, classes: int = CLASSES) -> nn.Module:
        values = VARIANTS[variant]
        torch.manual_seed(0)
        config = transformers.SegformerConfig(
            num_labels=classes,
            hidden_sizes=list(values["embed_dims"]),
            depths=list(values["depths"]),
            decoder_hidden_size=values["decoder_dim"],
            id2label={index: f"thing {index}" for index in range(classes)},
            initializer_range=0.1,  # with the default 0.02 the encoder hardly shows in the output
        )
        model = transformers.SegformerForSemanticSegmentation(config).eval()
        randomise(model)
        return model

    return build


@pytest.fixture(scope="session")
def reference() -> SegFormer:
    """Our B0 at random weights; tests must not change it."""
    torch.manual_seed(1)
    model = SegFormer(variant_config("b0", CLASSES)).eval()
    randomise(model, seed=1)
    return model


@pytest.fixture
def state(reference: SegFormer) -> dict[str, torch.Tensor]:
    """A copy of the reference's weights in our names, free to be spoilt."""
    return {k: v.clone() for k, v in reference.state_dict().items() if not k.endswith("num_batches_tracked")}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes tensors as safetensors and gives the path."""
    from safetensors.torch import save_file

    def save(tensors: dict[str, torch.Tensor], name: str = "weights.safetensors", **meta: str) -> Path:
        path = tmp_path / name
        save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=meta or None)
        return path

    return save
