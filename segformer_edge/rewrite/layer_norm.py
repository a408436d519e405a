"""Exact rewrite 2: LayerNorm's affine part folded into its readers, its mean into the writers of its input.

A LayerNorm is ``g * (x - mean(x)) / std(x) + b``. Where every reader is linear and unpadded, ``g`` and ``b`` belong
to the reader. Where every writer of ``x`` is linear, the writer can subtract the channel mean offline, and what is
left is an RMS norm. Every reader of a stage's residual stream is a LayerNorm, so the stream may be centred as a whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer_edge.model.segformer import SegFormer


class RmsNorm(nn.Module):
    """``x * rsqrt(mean(x**2) + eps)`` over the last axis, optionally times ``weight`` plus ``bias``.

    The mean is a C -> 1 linear: XNNPACK's mean only reduces image axes, and anything else splits the delegate.
    """

    mean: Tensor

    def __init__(self, dim: int, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("mean", torch.full((1, dim), 1.0 / dim, dtype=torch.float64), persistent=False)
        self.weight = None if weight is None else nn.Parameter(weight.clone())
        self.bias = None if bias is None else nn.Parameter(bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(F.linear(x * x, self.mean) + self.eps)
        if self.weight is not None:
            x = x * self.weight
        return x if self.bias is None else x + self.bias


def absorbed(reader: nn.Linear | nn.Conv2d, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias with which ``reader`` computes before ``norm``'s affine part what it computes behind it.

    Differentiable. Raises ValueError for a padded convolution: zeros are not padded with the shift.
    """
    if isinstance(reader, nn.Conv2d) and any(reader.padding):
        raise ValueError("A padded convolution cannot absorb a shift exactly.")
    taps = reader.weight.flatten(2).sum(2) if isinstance(reader, nn.Conv2d) else reader.weight
    weight = reader.weight * norm.weight.reshape(1, -1, *[1] * (reader.weight.ndim - 2))
    return weight, reader.bias + taps @ norm.bias


def centred(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A writer's ``weight`` ``(out, ...)`` and ``bias`` ``(out,)`` whose outputs have mean zero over channels."""
    return weight - weight.mean(dim=0, keepdim=True), bias - bias.mean()


def embedding_affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of the C -> C linear that applies ``norm``'s affine part and takes the channel mean away."""
    return centred(torch.diag(norm.weight), norm.bias)


def _set(module: nn.Linear | nn.Conv2d, values: tuple[Tensor, Tensor]) -> None:
    module.weight.copy_(values[0])
    module.bias.copy_(values[1])


@torch.no_grad()
def fold_layer_norm_affine(model: SegFormer) -> SegFormer:
    """Fold weight and bias of the LayerNorms inside the blocks into q, k, v, the reduction and fc1, in place.

    Stage norms keep theirs: the next patch embedding reads them through zero padding, which a shift does not survive.
    """
    for stage in model.stages:
        for block in stage.blocks:
            attention = block.attention
            pairs = [(block.norm2, [block.ffn.fc1])]
            if attention.reduction is None:
                pairs.append((block.norm1, [attention.q, attention.k, attention.v]))
            else:
                pairs.append((block.norm1, [attention.q, attention.reduction.conv]))
                pairs.append((attention.reduction.norm, [attention.k, attention.v]))
            for norm, readers in pairs:
                for reader in readers:
                    _set(reader, absorbed(reader, norm))
                norm.weight.fill_(1.0)
                norm.bias.zero_()
    return model


def _rms(norm: nn.LayerNorm, affine: bool = False) -> RmsNorm:
    """The RMS norm of a centred input, with or without the affine part; what is left out must be 1 and 0."""
    if not affine and bool((norm.weight != 1).any() or (norm.bias != 0).any()):
        raise ValueError("A LayerNorm still has its affine part; call fold_layer_norm_affine first.")
    values = (norm.weight, norm.bias) if affine else ()
    return RmsNorm(norm.normalized_shape[0], norm.eps, *values).to(norm.weight)


@torch.no_grad()
def centre_residual_streams(model: SegFormer) -> SegFormer:
    """Centre every writer of a LayerNorm's input offline and turn the LayerNorms into RMS norms, in place.

    Needs :func:`fold_layer_norm_affine` first; raises ValueError otherwise. The patch embedding's norm starts the
    stream; its affine part becomes a C -> C linear that also takes the channel mean away.
    """
    for stage in model.stages:
        embedding = stage.patch_embedding
        norm = embedding.norm
        start = nn.Linear(norm.normalized_shape[0], norm.normalized_shape[0]).to(norm.weight)
        _set(start, embedding_affine(norm))
        _set(embedding.proj, centred(embedding.proj.weight, embedding.proj.bias))
        norm.weight.fill_(1.0)
        norm.bias.zero_()
        embedding.norm = nn.Sequential(_rms(norm), start)
        for block in stage.blocks:
            for writer in (block.attention.proj, block.ffn.fc2):
                _set(writer, centred(writer.weight, writer.bias))
            block.norm1, block.norm2 = _rms(block.norm1), _rms(block.norm2)
            reduction = block.attention.reduction
            if reduction is not None:
                _set(reduction.conv, centred(reduction.conv.weight, reduction.conv.bias))
                reduction.norm = _rms(reduction.norm)
        stage.norm = _rms(stage.norm, affine=True)
    return model
