"""NVIDIA's published SegFormers by their ids on the Hugging Face hub: what each is, and what the paper says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from segformer_edge.data.class_tables import ClassTable, class_table
from segformer_edge.errors import UsageError
from segformer_edge.model.config import STRIDE, VARIANTS
from segformer_edge.suggestions import nearest

OWNER = "nvidia"
#: All of NVIDIA's SegFormer weights are under it.
NVIDIA_LICENCE = "NVIDIA Source Code License for SegFormer (non-commercial)"


@dataclass(frozen=True)
class PublishedModel:
    """One checkpoint; validated when it is made."""

    #: "b0" to "b5".
    variant: str
    #: Name of its class table.
    dataset: str
    #: (height, width) in pixels that it was trained on, which is the network's input unless the user says otherwise.
    size: tuple[int, int]
    #: Single-scale mIoU on the validation set as the paper has it, a fraction; None where the paper has none.
    miou: float | None
    #: Table of the paper (arXiv 2105.15203) with that figure.
    reference: str

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise UsageError(f"Unknown SegFormer variant '{self.variant}'.")
        if any(side % STRIDE for side in self.size):
            raise UsageError(f"{self.hub_id}: the sides {self.size} do not divide by {STRIDE}.")
        if self.miou is not None and not 0.0 < self.miou < 1.0:
            raise UsageError(f"{self.hub_id}: mIoU is a fraction; got {self.miou}.")

    @property
    def hub_id(self) -> str:
        """``owner/name`` on the hub."""
        height, width = self.size
        short = {"ade20k": "ade"}.get(self.dataset, self.dataset)
        return f"{OWNER}/segformer-{self.variant}-finetuned-{short}-{height}-{width}"

    @property
    def alias(self) -> str:
        """A short name: ``b0-ade20k``, and with the size where the variant has several on the data set."""
        height, width = self.size
        usual = self.dataset != "cityscapes" or self.size == (1024, 1024)
        return f"{self.variant}-{self.dataset}" + ("" if usual else f"-{height}x{width}")

    @property
    def classes(self) -> ClassTable:
        """Class names and colours, in the order of the logits."""
        return class_table(self.dataset)


def _ade20k(variant: str, side: int, miou: float) -> PublishedModel:
    return PublishedModel(variant, "ade20k", (side, side), miou, "Table 1")


def _cityscapes(variant: str, size: tuple[int, int], miou: float, table: str = "Table 1") -> PublishedModel:
    return PublishedModel(variant, "cityscapes", size, miou, table)


#: Hub id -> model. The three smaller inputs of B0 are the paper's real-time setting, by the short side.
PUBLISHED: dict[str, PublishedModel] = {
    model.hub_id: model
    for model in (
        _ade20k("b0", 512, 0.374),
        _ade20k("b1", 512, 0.422),
        _ade20k("b2", 512, 0.465),
        _ade20k("b3", 512, 0.494),
        _ade20k("b4", 512, 0.503),
        _ade20k("b5", 640, 0.510),
        _cityscapes("b0", (1024, 1024), 0.762),
        _cityscapes("b0", (512, 1024), 0.719, "Table 2"),
        _cityscapes("b0", (640, 1280), 0.737, "Table 2"),
        _cityscapes("b0", (768, 768), 0.753, "Table 2"),
        _cityscapes("b1", (1024, 1024), 0.785),
        _cityscapes("b2", (1024, 1024), 0.810),
        _cityscapes("b3", (1024, 1024), 0.817),
        _cityscapes("b4", (1024, 1024), 0.823),
        _cityscapes("b5", (1024, 1024), 0.824),
    )
}

ALIASES: dict[str, PublishedModel] = {model.alias: model for model in PUBLISHED.values()}


def published_model(name: str) -> PublishedModel | None:
    """The model of a hub id or an alias, else None."""
    return PUBLISHED.get(name) or ALIASES.get(name)


def meant(name: str) -> str:
    """A hint at the published model that ``name``, which is none, was probably meant to be; empty if nothing is near.

    A variant in the name counts: only its own models are near.
    """
    owner, _, rest = name.rpartition("/")
    if owner and nearest(owner, [OWNER]) is None:
        return ""
    variant = re.search(r"(?<![a-z0-9])b[0-5](?![0-9])", rest.lower())
    near = [model for model in PUBLISHED.values() if variant is None or model.variant == variant[0]]
    found = nearest(name, [model.hub_id if owner else model.alias for model in near])
    return f"Did you mean '{found}'? See: segformer-edge models" if found else ""
