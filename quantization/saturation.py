"""Weight scales that no x86 int8 kernel saturates with.

Without VNNI, x86 multiplies uint8 activations by int8 weights with ``vpmaddubsw``, which adds the products of two
neighbouring input channels in 16 bits: ``255 * (|w1| + |w2|)`` must stay within 32767, so ``|w1| + |w2| <= 128``.
The usual cure halves every weight's range. Most output channels are already close to the bound, so widening each
channel's scale only as far as its worst pair needs costs much less.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.sites import named_weights

#: Largest sum of two neighbouring int8 weights whose products with 255 add up within int16.
PAIR_LIMIT = 128


def pair_safe_scales(weight: Tensor, scales: Tensor) -> Tensor:
    """``scales`` ``(out,)``, widened per output channel until no pair of neighbouring weights can saturate.

    ``weight`` is ``(out, in, kh, kw)`` of a convolution with one group. Neighbours are those of every order in which
    kernels read: channels last or first, and each tap's channels by themselves. A single weight has none.
    """
    integer = (weight.detach() / scales[:, None, None, None]).abs()
    last = integer.permute(0, 2, 3, 1)
    sums = [_largest_pair(order) for order in (last.flatten(1), integer.flatten(1), last.flatten(1, 2))]
    # Rounding may lift each weight of a pair by a half.
    return scales * (torch.stack(sums).amax(dim=0) / (PAIR_LIMIT - 1)).clamp_min(1.0)


def _largest_pair(weight: Tensor) -> Tensor:
    """The largest sum of two neighbours along the last axis, which start at even places, for each first index."""
    if weight.shape[-1] % 2:
        weight = F.pad(weight, (0, 1))
    return (weight[..., 0::2] + weight[..., 1::2]).flatten(1).amax(dim=1)


def avoid_saturation(model: nn.Module) -> None:
    """Widen the weight scales of ``model``'s convolutions where kernels without VNNI could saturate.

    Depthwise kernels multiply in 16 bits and do not.
    """
    for _, conv in named_weights(model):
        if conv.active and conv.groups == 1 and conv.scales is not None:
            conv.set_scales(pair_safe_scales(conv.weight, conv.scales))
