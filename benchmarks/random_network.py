"""Networks of random weights with encodings: time and memory do not depend on what the weights are."""

from __future__ import annotations

import torch

from quantization.calibration import calibrate
from quantization.encodings import apply_encodings, encodings_of
from quantization.recipe import load_recipe
from segformer_edge.model.config import variant_config
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer


def random_network(variant: str, classes: int, recipe: str, output: str) -> EdgeSegFormer:
    """A random ``variant`` (b0 to b5), calibrated by ``recipe`` on noise; ``output`` as EdgeSegFormer takes it."""
    torch.manual_seed(0)
    model = SegFormer(variant_config(variant, classes)).eval()
    calibrated = EdgeSegFormer(model, output)
    calibrate(calibrated, [torch.randn(1, 3, 64, 64)], load_recipe(recipe))
    network = EdgeSegFormer(model, output)
    apply_encodings(network, encodings_of(calibrated, recipe))
    return network
