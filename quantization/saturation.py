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

    ``weight`` is ``(out, in, kh, kw)`` of a convolution with one group. Neighbours are those of either memory order,
    channels last or first; a single weight has none.
    """
    integer = (weight.detach() / scales[:, None, None, None]).abs()
    sums = []
    for order in (integer.permute(0, 2, 3, 1), integer):
        flat = order.flatten(1)
        if flat.shape[1] % 2:
            flat = F.pad(flat, (0, 1))
        sums.append((flat[:, 0::2] + flat[:, 1::2]).amax(dim=1))
    # Rounding may lift each weight of a pair by a half.
    return scales * (torch.maximum(*sums) / (PAIR_LIMIT - 1)).clamp_min(1.0)


def avoid_saturation(model: nn.Module) -> None:
    """Widen the weight scales of ``model``'s convolutions where kernels without VNNI could saturate.

    Depthwise kernels multiply in 16 bits and do not.
    """
    for _, conv in named_weights(model):
        if conv.active and conv.groups == 1 and conv.scales is not None:
            conv.set_scales(pair_safe_scales(conv.weight, conv.scales))
