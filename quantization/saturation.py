"""Weight scales that no x86 int8 kernel saturates with.

Without VNNI, x86 multiplies uint8 activations by int8 weights with ``vpmaddubsw``, which adds the products of two
neighbouring input channels in 16 bits: ``255 * (|w1| + |w2|)`` must stay within 32767, so ``|w1| + |w2| <= 128``.
The usual cure halves every weight's range. Most output channels are already close to the bound, so widening each
channel's scale only as far as its worst pair needs costs much less.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

#: Largest sum of two neighbouring int8 weights whose products with 255 add up within int16.
PAIR_LIMIT = 128


def pair_safe_scales(weight: Tensor, scales: Tensor) -> Tensor:
    """``scales`` ``(out,)``, widened per output channel until no pair of neighbouring input channels can saturate.

    ``weight`` is ``(out, in, kh, kw)`` of a convolution with one group; a single input channel has no neighbour.
    """
    integer = (weight.detach() / scales[:, None, None, None]).abs()
    if integer.shape[1] % 2:
        integer = F.pad(integer, (0, 0, 0, 0, 0, 1))
    pairs = (integer[:, 0::2] + integer[:, 1::2]).flatten(1).amax(dim=1)
    # Rounding may lift each weight of a pair by a half.
    return scales * (pairs / (PAIR_LIMIT - 1)).clamp_min(1.0)
