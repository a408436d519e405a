"""The deployed network's parameters as differentiable functions of the SegFormer's own, for training through it."""

from __future__ import annotations

import torch
from torch import Tensor

from segformer_edge.model.segformer import Block, SegFormer
from segformer_edge.rewrite.attention_scale import scaled
from segformer_edge.rewrite.head_fold import folded_projections
from segformer_edge.rewrite.layer_norm import absorbed, centred, embedding_affine

Pair = tuple[Tensor, Tensor]


def edge_parameters(model: SegFormer) -> dict[str, Tensor]:
    """Every parameter of ``EdgeSegFormer(model)`` that depends on ``model``'s weights, by its name there.

    For ``torch.func.functional_call``: gradients reach the weights of ``model``. BatchNorm counts with its running
    statistics. Computed in ``model``'s dtype, whereas ``EdgeSegFormer`` folds in float64.
    """
    pairs: dict[str, Pair] = {}
    norms: dict[str, Tensor] = {}
    for s, stage in enumerate(model.stages):
        embedding = stage.patch_embedding
        pairs[f"stages.{s}.embedding.proj"] = centred(embedding.proj.weight, embedding.proj.bias)
        pairs[f"stages.{s}.embedding.affine"] = embedding_affine(embedding.norm)
        for b, block in enumerate(stage.blocks):
            pairs |= {f"stages.{s}.blocks.{b}.{name}": pair for name, pair in _block(block).items()}
        for leaf in ("weight", "bias"):
            norms[f"stages.{s}.norm.{leaf}"] = getattr(stage.norm, leaf)[None, :, None, None]
    head = model.decode_head
    weights, bias = folded_projections(head)
    for i, weight in enumerate(weights):
        pairs[f"decode_head.projections.{i}"] = weight, bias if i == 0 else torch.zeros_like(bias)
    pairs["decode_head.classifier"] = head.classifier.weight, head.classifier.bias
    parameters = dict(norms)
    for name, (weight, bias) in pairs.items():
        parameters[f"{name}.weight"] = weight if weight.ndim == 4 else weight[:, :, None, None]
        parameters[f"{name}.bias"] = bias
    return parameters


def _block(block: Block) -> dict[str, Pair]:
    """Weights and biases of one block's convolutions, by their names in ``EdgeBlock``."""
    attention, ffn = block.attention, block.ffn
    pairs = {
        "attention.query": scaled(absorbed(attention.q, block.norm1), attention.scale),
        "attention.proj": centred(attention.proj.weight, attention.proj.bias),
        "ffn.fc1": absorbed(ffn.fc1, block.norm2),
        "ffn.depthwise": (ffn.depthwise.weight, ffn.depthwise.bias),
        "ffn.fc2": centred(ffn.fc2.weight, ffn.fc2.bias),
    }
    source = block.norm1
    if attention.reduction is not None:
        source = attention.reduction.norm
        pairs["attention.reduction"] = centred(*absorbed(attention.reduction.conv, block.norm1))
    pairs["attention.key"], pairs["attention.value"] = absorbed(attention.k, source), absorbed(attention.v, source)
    return pairs
