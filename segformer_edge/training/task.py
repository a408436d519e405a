"""What a training run trains: the network that gradients go through, its loss, and what of it is scored."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer_edge.data.metrics import IGNORE
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.model.segformer import SegFormer
from segformer_edge.training.folded_head import FoldedHeadTraining
from segformer_edge.training.recipe import Recipe


class Task(Protocol):
    """What the loop asks of float training and of quantization-aware training."""

    #: Says in a resumed run's state what it was.
    name: str
    #: Network input (height, width) at which is scored; None scores each image at its own size.
    size: tuple[int, int] | None
    #: Images (B, 3, H, W), normalised, to logits (B, C, H/4, W/4); its attribute ``model`` is the SegFormer trained.
    network: nn.Module
    #: Whether averaged weights average their buffers too (BatchNorm's statistics), or copy them.
    average_buffers: bool
    #: Whether the weights to start from are the first candidate for the best.
    start_is_candidate: bool

    def groups(self) -> list[dict]:
        """Optimizer groups; ``peak`` is each one's largest learning rate, ``clip`` says if its gradients are."""

    def before_step(self, step: int, network: nn.Module, groups: list[dict]) -> None:
        """Called with the unwrapped ``network`` before ``step`` (0 first), the ``groups`` having their rates."""

    def loss(self, logits: Tensor, images: Tensor, labels: Tensor, labelled: Tensor) -> Tensor:
        """Loss of this process's share of the batch; ``labelled`` is how many pixels all processes have on average."""

    def deployed(self, network: nn.Module) -> nn.Module:
        """What is scored, in eval mode."""

    def baselines(self, dataset: SegmentationDataset, device: torch.device) -> dict[str, float]:
        """Scores on ``dataset`` to compare the run with, by their name in the log; asked once, at the start."""


def parameter_groups(model: SegFormer, recipe: Recipe) -> list[dict]:
    """AdamW groups: no decay for norms and biases, ``head_factor`` times the rate for the decode head."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        head, plain = name.startswith("decode_head."), parameter.ndim == 1
        groups.setdefault((head, plain), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak": recipe.learning_rate * (recipe.head_factor if head else 1.0),
            "clip": True,
            "lr": 0.0,
            "weight_decay": 0.0 if plain else recipe.weight_decay,
        }
        for (head, plain), parameters in groups.items()
    ]


def segmentation_loss(logits: Tensor, labels: Tensor, labelled: Tensor) -> Tensor:
    """Summed cross entropy of logits (B, C, H/4, W/4), upsampled bilinearly, over ``labelled``; 255 is ignored."""
    logits = F.interpolate(logits.float(), size=labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / labelled


class FloatTask:
    """Training in float, scored at the images' own sizes."""

    name = "float"
    size: tuple[int, int] | None = None
    average_buffers = True
    start_is_candidate = False

    def __init__(self, model: SegFormer, recipe: Recipe) -> None:
        self.network, self.recipe = FoldedHeadTraining(model), recipe

    def groups(self) -> list[dict]:
        return parameter_groups(self.network.model, self.recipe)

    def before_step(self, step: int, network: nn.Module, groups: list[dict]) -> None:
        return None

    def loss(self, logits: Tensor, images: Tensor, labels: Tensor, labelled: Tensor) -> Tensor:
        return segmentation_loss(logits, labels, labelled)

    def deployed(self, network: nn.Module) -> nn.Module:
        return network.model

    def baselines(self, dataset: SegmentationDataset, device: torch.device) -> dict[str, float]:
        return {}
