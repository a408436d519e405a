"""SegFormer as in the paper: Xie et al., NeurIPS 2021, arXiv 2105.15203.

Section 3.1 is the encoder (hierarchical Mix Transformer), section 3.2 the all-MLP decoder. Tokens are
``(batch, tokens, channels)`` in row-major order of the feature map; feature maps are
``(batch, channels, height, width)``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer_edge.errors import UsageError
from segformer_edge.model.config import STRIDE, SegformerConfig


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)


class DropPath(nn.Module):
    """Stochastic depth: drops the whole residual branch of a sample in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, device=x.device, dtype=x.dtype) >= self.rate
        return x * keep / (1.0 - self.rate)


class OverlapPatchEmbedding(nn.Module):
    """Overlapped patch merging (section 3.1): K7 S4 P3 for the first stage, K3 S2 P1 after it."""

    def __init__(self, in_channels: int, dim: int, kernel: int, stride: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(dim, eps)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)
        return self.norm(to_tokens(x)), x.shape[2], x.shape[3]


class SequenceReduction(nn.Module):
    """Shortens the key/value sequence by R = side**2 (equation 2) with a side x side strided convolution."""

    def __init__(self, dim: int, side: int, eps: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, side, side)
        self.norm = nn.LayerNorm(dim, eps)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        return self.norm(to_tokens(self.conv(to_map(x, height, width))))


class EfficientSelfAttention(nn.Module):
    """Multi-head self-attention over a reduced key/value sequence: O(N**2 / R) (equation 1)."""

    def __init__(self, dim: int, heads: int, side: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.reduction = SequenceReduction(dim, side, eps) if side > 1 else None

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B*heads, N, C/heads): 3-D, so that the product is a plain bmm."""
        batch, tokens, dim = x.shape
        x = x.reshape(batch, tokens, self.heads, dim // self.heads).transpose(1, 2)
        return x.reshape(batch * self.heads, tokens, dim // self.heads)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        batch, tokens, dim = x.shape
        source = x if self.reduction is None else self.reduction(x, height, width)
        q, k, v = self._split_heads(self.q(x)), self._split_heads(self.k(source)), self._split_heads(self.v(source))
        attention = (torch.bmm(q, k.transpose(1, 2)) * self.scale).softmax(dim=-1)
        context = torch.bmm(attention, v).reshape(batch, self.heads, tokens, dim // self.heads)
        return self.proj(context.transpose(1, 2).reshape(batch, tokens, dim))


class MixFFN(nn.Module):
    """Mix-FFN (equation 3): a 3x3 depthwise convolution leaks position, so no positional encoding is needed."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        hidden = dim * ratio
        self.fc1 = nn.Linear(dim, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = self.depthwise(to_map(self.fc1(x), height, width))
        return self.fc2(F.gelu(to_tokens(x)))


class Block(nn.Module):
    """One transformer block: efficient self-attention and Mix-FFN, each behind a LayerNorm and a residual."""

    def __init__(self, index: int, config: SegformerConfig, drop_path: float) -> None:
        super().__init__()
        dim, eps = config.embed_dims[index], config.norm_eps
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attention = EfficientSelfAttention(
            dim, config.num_heads[index], config.reduction_sides[index], config.embed_norm_eps
        )
        self.norm2 = nn.LayerNorm(dim, eps)
        self.ffn = MixFFN(dim, config.mlp_ratios[index])
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x), height, width))
        return x + self.drop_path(self.ffn(self.norm2(x), height, width))


class Stage(nn.Module):
    """Patch embedding, blocks, and the LayerNorm whose output is the stage's feature map."""

    def __init__(self, in_channels: int, index: int, config: SegformerConfig, drop_paths: list[float]) -> None:
        super().__init__()
        dim = config.embed_dims[index]
        self.patch_embedding = OverlapPatchEmbedding(
            in_channels, dim, config.patch_kernels[index], config.patch_strides[index], config.embed_norm_eps
        )
        self.blocks = nn.ModuleList(Block(index, config, rate) for rate in drop_paths)
        self.norm = nn.LayerNorm(dim, config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x, height, width = self.patch_embedding(x)
        for block in self.blocks:
            x = block(x, height, width)
        return to_map(self.norm(x), height, width)


class AllMLPHead(nn.Module):
    """Lightweight all-MLP decoder (section 3.2, equation 4)."""

    def __init__(self, config: SegformerConfig, dropout: float) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.projections = nn.ModuleList(nn.Linear(width, dim) for width in config.embed_dims)
        self.fuse = nn.Conv2d(dim * len(config.embed_dims), dim, 1, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(dim, config.num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[2:]
        maps = []
        for projection, feature in zip(self.projections, features, strict=True):
            x = to_map(projection(to_tokens(feature)), *feature.shape[2:])
            maps.append(F.interpolate(x, size=size, mode="bilinear", align_corners=False))
        # Published checkpoints concatenate the deepest stage first.
        x = F.relu(self.norm(self.fuse(torch.cat(maps[::-1], dim=1))))
        return self.classifier(self.dropout(x))


class SegFormer(nn.Module):
    """Image ``(B, 3, H, W)``, ImageNet-normalised, H and W multiples of 32 -> logits ``(B, classes, H/4, W/4)``."""

    def __init__(self, config: SegformerConfig, drop_path: float = 0.1, dropout: float = 0.1) -> None:
        super().__init__()
        self.config = config
        rates = torch.linspace(0, drop_path, sum(config.depths)).tolist()
        stages, channels, start = [], 3, 0
        for index, depth in enumerate(config.depths):
            stages.append(Stage(channels, index, config, rates[start : start + depth]))
            channels, start = config.embed_dims[index], start + depth
        self.stages = nn.ModuleList(stages)
        self.decode_head = AllMLPHead(config, dropout)

    def features(self, image: Tensor) -> list[Tensor]:
        """The four feature maps at 1/4, 1/8, 1/16 and 1/32 of the image. Raises UsageError for a bad size."""
        if image.shape[2] % STRIDE or image.shape[3] % STRIDE:
            raise UsageError(
                f"The input is {image.shape[2]}x{image.shape[3]}; both sides must be multiples of {STRIDE}."
            )
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features

    def forward(self, image: Tensor) -> Tensor:
        return self.decode_head(self.features(image))
