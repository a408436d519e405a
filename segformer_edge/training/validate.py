"""Scores a model on a data set in torch: logits upsampled to the label map, one confusion matrix over all images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from segformer_edge.data.metrics import ConfusionMatrix
from segformer_edge.data.processing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, labels_from_logits
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.model.config import STRIDE
from segformer_edge.verbosity import is_quiet


def normalise(images: Tensor) -> Tensor:
    """uint8 RGB (B, 3, H, W) -> float32 with ImageNet's mean and deviation."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / std


@torch.no_grad()
def predict(
    model: nn.Module, image: np.ndarray, device: torch.device, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Label map uint8 (H, W) of a uint8 RGB image (H, W, 3), which is scaled to ``size`` (height, width).

    Without ``size``, an image's sides are scaled to the nearest multiple of 32.
    """
    height, width = size or (max(STRIDE, round(side / STRIDE) * STRIDE) for side in image.shape[:2])
    x = torch.from_numpy(Preprocessing((height, width))(image)).to(device)
    return labels_from_logits(model(x)[0].float().cpu().numpy(), (image.shape[0], image.shape[1]))


def validate(
    model: nn.Module,
    dataset: SegmentationDataset,
    device: torch.device | None = None,
    advance: Callable[[], None] = lambda: None,
    size: tuple[int, int] | None = None,
) -> ConfusionMatrix:
    """Confusion matrix of ``model`` on ``dataset``, images scaled as in ``predict``; its training mode is put back."""
    device = device or next(model.parameters()).device
    matrix, training = ConfusionMatrix(dataset.num_classes), model.training
    model.eval()
    for sample in dataset:
        matrix.update(sample.labels, predict(model, sample.image, device, size))
        advance()
    model.train(training)
    return matrix


def validate_with_progress(
    model: nn.Module, dataset: SegmentationDataset, size: tuple[int, int] | None = None
) -> ConfusionMatrix:
    """``validate`` with a progress bar on stderr."""
    console = Console(stderr=True)
    with Progress(console=console, disable=is_quiet() or not console.is_terminal) as progress:
        bar = progress.add_task(f"scoring on {dataset.name}", total=len(dataset))
        return validate(model, dataset, advance=lambda: progress.advance(bar), size=size)
