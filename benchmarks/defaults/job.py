"""What every pipeline starts from: transformers' model as it comes, its input size and calibration images."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segformer_edge.data.images import list_images, read_image
from segformer_edge.data.processing import Preprocessing
from segformer_edge.errors import UsageError

#: What ``random:VARIANT:CLASSES`` may name: the widths that tell the variants apart (Table 6 of the paper).
VARIANTS: dict[str, dict[str, Any]] = {
    "b0": {"hidden_sizes": [32, 64, 160, 256]},
    "b1": {"hidden_sizes": [64, 128, 320, 512]},
}
RANDOM = "random"
SEED = 0


@dataclass(frozen=True)
class Job:
    """One pipeline's inputs; batches are float32 (1, 3, H, W), normalised."""

    model: nn.Module
    size: tuple[int, int]
    batches: Sequence[Tensor]
    #: The float file that some int8 pipelines start from.
    float_file: Path | None = None

    @property
    def example(self) -> tuple[Tensor]:
        """Arguments to trace the model with."""
        return (self.batches[0],)


class Logits(nn.Module):
    """The model's logits at a quarter of the size, as a tensor: exporters take no output classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(1, 3, H, W) to (1, classes, H/4, W/4)."""
        return self.model(pixel_values=pixel_values).logits


def check_weights(weights: str) -> re.Match[str] | None:
    """``random:b0:150`` in parts, or None for a folder in Hugging Face layout. Raises UsageError for anything else."""
    if weights.partition(":")[0] == RANDOM:
        match = re.fullmatch(rf"{RANDOM}:({'|'.join(VARIANTS)}):([1-9]\d{{0,2}})", weights)
        if match is None:
            raise UsageError(f"Weights '{weights}' are not random:VARIANT:CLASSES.", hint="For example: random:b0:150")
        return match
    if not (Path(weights) / "config.json").is_file():
        raise UsageError(f"'{weights}' is not a folder in Hugging Face layout: it has no config.json.")
    return None


def load_model(weights: str) -> nn.Module:
    """The model of ``weights``, as ``check_weights`` takes them, with logits alone as its output. Raises UsageError."""
    random = check_weights(weights)
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    if random:
        torch.manual_seed(SEED)
        config = SegformerConfig(**VARIANTS[random[1]], num_labels=int(random[2]))
        return Logits(SegformerForSemanticSegmentation(config)).eval()
    return Logits(SegformerForSemanticSegmentation.from_pretrained(weights, local_files_only=True)).eval()


def load_batches(calibration: str, size: tuple[int, int], count: int) -> list[Tensor]:
    """``count`` images spread over the folder ``calibration``, or for "random" as many of noise. Raises DataError."""
    preprocessing = Preprocessing(size)
    if calibration == RANDOM:
        generator = np.random.default_rng(SEED)
        images = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]
    else:
        paths = list_images(Path(calibration))
        chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
        images = [read_image(paths[i]) for i in chosen]
    # numpy's new axis has the stride 0, which ExecuTorch refuses; torch's has not.
    return [torch.from_numpy(preprocessing(image)[0]).unsqueeze(0) for image in images]


def digest_of(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, str]:
    """SHA-256 of the weights and of the calibration images."""
    weights, images = hashlib.sha256(), hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    for batch in batches:
        images.update(batch.numpy().tobytes())
    return {"weights": weights.hexdigest(), "calibration": images.hexdigest()}
