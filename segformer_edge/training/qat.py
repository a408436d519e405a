"""Quantization-aware training of a SegFormer through its deployed form.

The parameters that learn are the SegFormer's own: every step computes the rewritten network's weights from them
(``edge_parameters``) and fake-quantizes these. What comes out is an ordinary checkpoint and an encodings file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.calibration import CalibrationError, calibrate
from quantization.encodings import EncodingsError, apply_encodings
from quantization.qat import freeze_scales, prepare_qat, range_parameters, transfer
from quantization.recipe import Recipe as PrecisionRecipe
from quantization.recipe import RecipeError
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import UsageError
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.parameters import edge_parameters
from segformer_edge.training.folded_head import FoldedHeadTraining
from segformer_edge.training.recipe import QatRecipe, Recipe
from segformer_edge.training.task import parameter_groups, segmentation_loss
from segformer_edge.training.validate import validate


def calibrated_network(
    model: SegFormer, recipe: PrecisionRecipe | None, batches: Iterable[Tensor], encodings: dict | None
) -> EdgeSegFormer:
    """The rewritten ``model`` with post-training parameters: those of ``encodings``, or calibrated on ``batches``.

    Raises UsageError when recipe, encodings or images do not fit the model.
    """
    network = EdgeSegFormer(model)
    try:
        if encodings is None:
            assert recipe is not None
            calibrate(network, batches, recipe)
        else:
            apply_encodings(network, encodings)
    except (RecipeError, EncodingsError, CalibrationError) as error:
        raise UsageError(str(error)) from error
    return network


class QuantizedTraining(nn.Module):
    """``model`` as it is deployed, with fake-quantized weights and activations; logits at 1/4 resolution."""

    def __init__(self, model: SegFormer, edge: EdgeSegFormer, precision: str) -> None:
        super().__init__()
        self.model = model
        #: Name of the precision recipe, for the encodings file.
        self.precision = precision
        # Its own weights are only placeholders, replaced in every forward pass; its ranges are learned.
        self.edge = edge.requires_grad_(False)
        prepare_qat(self.edge)

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            parameters = edge_parameters(self.model)
        return torch.func.functional_call(self.edge, parameters, (image,))

    def freeze_scales(self) -> None:
        """Fix the weight scales at what the weights are now."""
        with torch.no_grad():
            self.edge.load_state_dict(edge_parameters(self.model), strict=False)
        freeze_scales(self.edge)

    def deployed(self) -> EdgeSegFormer:
        """The quantized network as every exporter builds it from the weights and the encodings."""
        return deployed_network(self.model, self)


def deployed_network(model: SegFormer, trained: QuantizedTraining) -> EdgeSegFormer:
    """``model`` rewritten, with the quantization parameters that ``trained`` has learned."""
    network = EdgeSegFormer(model)
    transfer(trained.edge, network)
    return network


class QatTask:
    """Quantization-aware training: cross entropy and distillation from the float model that it starts from."""

    average_buffers = False
    start_is_candidate = True

    def __init__(self, model: SegFormer, edge: EdgeSegFormer, recipe: Recipe, size: tuple[int, int]) -> None:
        self.size: tuple[int, int] | None = size
        self.recipe, self.qat = recipe, recipe.qat or QatRecipe()
        self.name = f"qat {self.qat.quantization} {size[0]}x{size[1]}"
        self.teacher = FoldedHeadTraining(copy.deepcopy(model)).eval().requires_grad_(False)
        self.network = QuantizedTraining(model, edge, self.qat.quantization)

    def groups(self) -> list[dict]:
        ranges = {
            "params": range_parameters(self.network),
            "peak": self.recipe.learning_rate * self.qat.range_factor,
            # Their gradients sum over whole feature maps and would set the norm alone.
            "clip": False,
            "lr": 0.0,
            "weight_decay": 0.0,
            "ranges": True,
        }
        return [*parameter_groups(self.network.model, self.recipe), ranges]

    def before_step(self, step: int, network: nn.Module, groups: list[dict]) -> None:
        end = self.qat.freeze_ranges_at * self.recipe.steps
        if step < end:
            return
        for group in groups:
            if group.get("ranges"):
                group["lr"] = 0.0
        if step - 1 < end:
            network.freeze_scales()

    def loss(self, logits: Tensor, images: Tensor, labels: Tensor, labelled: Tensor) -> Tensor:
        loss = segmentation_loss(logits, labels, labelled)
        if not self.qat.distillation:
            return loss
        self.teacher.to(images.device)
        with torch.no_grad():
            target = self.teacher(images).float()
        t = self.qat.temperature
        student, target = (logits.float() / t).log_softmax(1), (target / t).log_softmax(1)
        divergence = F.kl_div(student, target, reduction="none", log_target=True).sum(1).mean()
        return loss + self.qat.distillation * t * t * divergence

    def deployed(self, network: nn.Module) -> nn.Module:
        return network.deployed()

    def baselines(self, dataset: SegmentationDataset, device: torch.device) -> dict[str, float]:
        return {"float_miou": validate(self.teacher.model.to(device), dataset, device, size=self.size).miou}
