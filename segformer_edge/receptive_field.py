"""Effective receptive fields: which pixels an output in the middle depends on, by the gradient back to the image.

Luo et al., "Understanding the effective receptive field in deep convolutional neural networks", NeurIPS 2016; shown for
SegFormer's four stages and its head in Figure 3 of the paper (Xie et al., NeurIPS 2021, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from quantization.sensitivity import whole_of
from quantization.sites import Mode, set_mode
from segformer_edge.errors import SegformerEdgeError, UsageError
from segformer_edge.progress import Progress
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import RowBands

#: Image ``(1, 3, H, W)`` -> named outputs ``(1, C, h, w)``.
Outputs = Callable[[Tensor], Mapping[str, Tensor]]

#: Shares of the gradient whose squares are reported.
SHARES = (0.5, 0.9, 0.95)


@dataclass(frozen=True)
class ReceptiveField:
    """Of one output: how much each pixel of the image moves it, on average over images."""

    #: float64 (H, W), sums to 1.
    gradient: npt.NDArray[np.float64]
    #: (row, column) in the image of the output's position: the middle of a convolution's kernel there.
    centre: tuple[int, int]
    #: Pixels of the image to one of the output.
    stride: int

    def __post_init__(self) -> None:
        height, width = self.gradient.shape
        if not (0 <= self.centre[0] < height and 0 <= self.centre[1] < width):
            raise ValueError(f"The centre {self.centre} lies outside of {height}x{width}.")
        if not np.isfinite(self.gradient).all() or abs(self.gradient.sum() - 1.0) > 1e-6:
            raise ValueError(f"A receptive field sums to 1; this one to {self.gradient.sum()}.")

    @cached_property
    def shares(self) -> npt.NDArray[np.float64]:
        """Entry r: the share of the gradient in the square of side 2r + 1 around the centre; rises to 1."""
        rows, columns = (np.abs(np.arange(n) - c) for n, c in zip(self.gradient.shape, self.centre, strict=True))
        distance = np.maximum.outer(rows, columns)
        return np.cumsum(np.bincount(distance.ravel(), weights=self.gradient.ravel()))

    def side(self, share: float) -> int:
        """Side in pixels of the smallest centred square that holds ``share`` of the gradient, 0 < ``share`` < 1.

        What of the square lies outside of the image counts for nothing, so no side is above the image's longer one.
        """
        if not 0.0 < share < 1.0:
            raise ValueError(f"A share lies between 0 and 1; got {share}.")
        radius = int(np.argmax(self.shares >= share))
        return min(2 * radius + 1, max(self.gradient.shape))

    def overlap(self, other: ReceptiveField) -> float:
        """What the two have in common, pixel by pixel: 1 for equal fields, 0 for disjoint ones."""
        return float(np.minimum(self.gradient, other.gradient).sum())


def receptive_fields(outputs: Outputs, images: Iterable[Tensor]) -> dict[str, ReceptiveField]:
    """Receptive field of the middle position of each output, averaged over ``images``, each ``(1, 3, H, W)`` float32.

    The scalar that is derived is the sum of the channels' magnitudes: channels of opposite sign do not cancel, which
    behind a LayerNorm they would. A pixel counts with the magnitudes of its colours' gradients; each image counts the
    same.

    Raises UsageError without images, SegformerEdgeError for an output that no pixel moves.
    """
    sums: dict[str, npt.NDArray[np.float64]] = {}
    places: dict[str, tuple[tuple[int, int], int]] = {}
    for image in images:
        image = image.detach().clone().requires_grad_()
        found = outputs(image)
        for name, output in found.items():
            stride = image.shape[2] // output.shape[2]
            row, column = output.shape[2] // 2, output.shape[3] // 2
            (gradient,) = torch.autograd.grad(output[0, :, row, column].abs().sum(), image, retain_graph=True)
            field = gradient[0].abs().sum(dim=0).double().numpy()
            if not np.isfinite(total := field.sum()) or total <= 0.0:
                raise SegformerEdgeError(
                    f"No pixel moves the output '{name}' (its gradient sums to {total}).",
                    hint="Such weights see nothing of the image; check them with: python -m segformer_edge.evaluate",
                )
            sums[name] = sums.get(name, 0.0) + field / total
            places[name] = ((row * stride, column * stride), stride)
    if not sums:
        raise UsageError("An effective receptive field needs at least one image.")
    return {name: ReceptiveField(field / field.sum(), *places[name]) for name, field in sums.items()}


def outputs_of(network: EdgeSegFormer) -> Outputs:
    """The feature maps of the four stages and the logits of ``network``, in the mode that its sites are in.

    Its parameters need no gradients for this, and are told so.
    """
    if network.output_form != "logits":
        raise UsageError("An effective receptive field is that of logits.", hint="Leave out --output labels.")
    network.requires_grad_(False)

    def outputs(image: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(index: int) -> Callable[[nn.Module, Any, RowBands], None]:
            def hook(module: nn.Module, arguments: Any, bands: RowBands) -> None:
                found[f"stage {index + 1}"] = bands.rows(0, bands.height)

            return hook

        hooks = [stage.register_forward_hook(keep(index)) for index, stage in enumerate(network.stages)]
        try:
            logits = network(image)
        finally:
            for hook in hooks:
                hook.remove()
        return {**found, "head": logits}

    return outputs


@dataclass(frozen=True)
class Precisions:
    """The receptive fields of one checkpoint, in float and, where the recipe quantizes something, in INT8."""

    model: str
    weights: str
    #: (height, width) of the network's input.
    size: tuple[int, int]
    recipe: str
    images: int
    #: "float" and "int8" -> output -> field.
    fields: Mapping[str, Mapping[str, ReceptiveField]]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict: sides in pixels by share, and the overlap of float and INT8 (null without INT8)."""
        exact, quantized = self.fields["float"], self.fields.get("int8")
        return {
            "schema_version": 1,
            "model": self.model,
            "weights": self.weights,
            "size": list(self.size),
            "recipe": self.recipe,
            "images": self.images,
            "outputs": [
                {
                    "name": name,
                    "stride": field.stride,
                    **{
                        precision: {f"side_{share:.0%}"[:-1]: fields[name].side(share) for share in SHARES}
                        for precision, fields in self.fields.items()
                    },
                    "overlap": None if quantized is None else field.overlap(quantized[name]),
                }
                for name, field in exact.items()
            ],
        }


def compare_precisions(
    network: EdgeSegFormer, images: Sequence[Tensor], tell: Progress
) -> dict[str, dict[str, ReceptiveField]]:
    """Receptive fields of a calibrated ``network`` in float, and in INT8 by its fake-quantized form.

    Gradients pass the rounding straight through, and not where a value is clipped (Bengio et al., arXiv 1308.3432).
    Where the recipe quantizes nothing there is no INT8. Leaves the network in :attr:`Mode.FAKE`.
    """
    outputs = outputs_of(network)
    modes = {"float": Mode.FLOAT, "int8": Mode.FAKE} if whole_of(network) else {"float": Mode.FLOAT}
    advance = tell.bar("receptive fields", len(images) * len(modes))

    def counted() -> Iterable[Tensor]:
        for image in images:
            yield image
            advance()

    found = {}
    for precision, mode in modes.items():
        set_mode(network, mode)
        found[precision] = receptive_fields(outputs, counted())
    set_mode(network, Mode.FAKE)
    return found
