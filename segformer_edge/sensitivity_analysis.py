"""Sensitivity of a calibrated network: each class of sites, then each stage, quantized alone and left out alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quantization.encodings import apply_encodings, encodings_of
from quantization.sensitivity import Part, parts_by_module, parts_by_role, quantized_only, whole_of
from quantization.sites import named_sites, named_weights
from segformer_edge.data.metrics import ConfusionMatrix
from segformer_edge.data.processing import labels_from_logits
from segformer_edge.errors import UsageError
from segformer_edge.evaluation import TorchSegmenter
from segformer_edge.jsonfile import write_bytes
from segformer_edge.prepare import Prepared, QuantizeOptions, evenly
from segformer_edge.progress import Progress
from segformer_edge.report.sensitivity import Harm, PartHarm, Sensitivity
from segformer_edge.report.sensitivity_plot import plot_sensitivity
from segformer_edge.rewrite.graph import EdgeSegFormer

Image = npt.NDArray[np.uint8]

#: Images to compare on. One image through the 79 networks of B0 at 256x256, recipe ``mixed``, takes one core some 8 s.
IMAGES = 24
#: Fewer than this many cannot be told from chance.
_FEW = 4


@dataclass(frozen=True)
class ComparedImage:
    """One image and, where there are some, its labels: uint8 (H, W), 255 for 'ignore'."""

    image: Image
    labels: Image | None = None


def kl_divergence(reference: Tensor, logits: Tensor) -> float:
    """KL(softmax(reference) || softmax(logits)) in nats, mean over pixels; both are (B, C, h, w)."""
    p, q = reference.double().log_softmax(1), logits.double().log_softmax(1)
    return float((p.exp() * (p - q)).sum(1).mean())


class _Tally:
    """Sums over the images for one network."""

    def __init__(self, classes: int) -> None:
        self.kl, self.images, self.equal, self.pixels = 0.0, 0, 0, 0
        self.matrix = ConfusionMatrix(classes)

    def add(self, kl: float, map_: Image, reference: Image, labels: Image | None) -> None:
        self.kl += kl
        self.images += 1
        self.equal += int(np.count_nonzero(map_ == reference))
        self.pixels += reference.size
        if labels is not None:
            self.matrix.update(labels, map_)

    def harm(self, fp32_miou: float | None) -> Harm:
        drop = None if fp32_miou is None else fp32_miou - self.matrix.miou
        # Rounding may leave the divergence of two equal networks a little below zero.
        return Harm(max(self.kl / self.images, 0.0), self.equal / self.pixels, drop)


def sensitivity_of(prepared: Prepared, options: QuantizeOptions, tell: Progress) -> Sensitivity:
    """Analyse the quantized reference on ``options.sensitivity`` labelled images, or else on those of calibration."""
    count = options.sensitivity or IMAGES
    if options.dataset is not None:
        samples = [options.dataset[i] for i in evenly(len(options.dataset), count)]
        images = [ComparedImage(sample.image, sample.labels) for sample in samples]
    else:
        images = [ComparedImage(image) for image in prepared.some_images(count)]
    network = prepared.network
    if network.output_form != "logits":
        network = EdgeSegFormer(prepared.loaded.model)
        apply_encodings(network, encodings_of(prepared.network, prepared.recipe))
    return analyse(
        network,
        TorchSegmenter(prepared.loaded.model, prepared.preprocessing),
        images,
        tell,
        model=prepared.loaded.variant or "custom",
        weights=options.weights,
        recipe=prepared.recipe,
        dataset=options.dataset.name if options.dataset is not None else None,
    )


def analyse(
    network: EdgeSegFormer, original: TorchSegmenter, images: Sequence[ComparedImage], tell: Progress, *,
    model: str, weights: str, recipe: str, dataset: str | None = None,
) -> Sensitivity:  # fmt: skip
    """What each part of ``network``, calibrated or with encodings applied, costs against the float32 ``original``.

    Every network sees every image once, at the size of ``original``'s preprocessing. Labels of all images make mIoU
    the measure; ``dataset`` names them. ``network``'s modes are the same afterwards, and its output form is logits.

    Raises UsageError without images, for a network that gives labels, or where nothing is quantized.
    """
    start = time.perf_counter()
    whole, roles = whole_of(network), parts_by_role(network)
    if not images:
        raise UsageError("A sensitivity analysis needs at least one image.")
    if network.output_form != "logits":
        raise UsageError("A sensitivity analysis compares logits.", hint="Leave out --output labels.")
    if not whole:
        raise UsageError(f"Recipe '{recipe}' quantizes nothing, so nothing can do harm.")
    if len(images) < _FEW:
        tell.warn(f"only {len(images)} image(s) to compare on; differences between small figures are chance")
    modules = parts_by_module(network, ["image", *(f"stages.{i}" for i in range(len(network.stages))), "decode_head"])
    # Keyed by what is quantized: the image site is a role and a module, and is measured once.
    tallies = {
        part: _Tally(network.config.num_classes) for part in _networks(whole, [*roles.values(), *modules.values()])
    }
    reference = _Tally(network.config.num_classes)
    labelled = all(entry.labels is not None for entry in images)
    advance = tell.bar("sensitivity", len(images) * len(tallies))
    for entry in images:
        batch = torch.from_numpy(original.preprocessing(entry.image))
        size = (entry.image.shape[0], entry.image.shape[1])
        labels = entry.labels if labelled else None
        with torch.inference_mode():
            exact: Tensor = original.module(batch)
            expected = labels_from_logits(exact[0].numpy(), size)
            reference.add(0.0, expected, expected, labels)
            for part, tally in tallies.items():
                with quantized_only(network, part):
                    logits = network(batch)
                map_ = labels_from_logits(logits[0].numpy(), size)
                tally.add(kl_divergence(exact, logits), map_, expected, labels)
                advance()
    fp32 = reference.matrix.miou if labelled else None
    harms = {part: tally.harm(fp32) for part, tally in tallies.items()}
    return Sensitivity(
        model=model,
        weights=weights,
        size=original.preprocessing.size,
        recipe=recipe,
        images=len(images),
        dataset=dataset if labelled else None,
        fp32_miou=fp32,
        whole=harms[whole],
        roles=_worst_first(network, roles, whole, harms),
        modules=_worst_first(network, modules, whole, harms),
        seconds=time.perf_counter() - start,
    )


def _halves(part: Part) -> tuple[Part, Part]:
    """Only the weights, and only the activations."""
    return Part(weights=part.weights), Part(sites=part.sites)


def _networks(whole: Part, parts: Sequence[Part]) -> list[Part]:
    """Every network to measure, once: the whole, each part alone and left out, and its halves if it has both."""
    found = [whole]
    for part in parts:
        found += [part, whole - part, *(_halves(part) if part.weights and part.sites else ())]
    return list(dict.fromkeys(found))


def _worst_first(
    network: EdgeSegFormer, parts: Mapping[str, Part], whole: Part, harms: Mapping[Part, Harm]
) -> tuple[PartHarm, ...]:
    sites, convs = dict(named_sites(network)), dict(named_weights(network))
    rows = []
    for name, part in parts.items():
        weights, activations = _halves(part)
        both = bool(weights and activations)
        row = PartHarm(
            name,
            activations=dict(Counter(sites[site].dtype for site in sorted(part.sites))),
            weights=dict(Counter(convs[conv].weight_dtype for conv in sorted(part.weights))),
            alone=harms[part],
            weights_alone=harms[weights] if both else None,
            activations_alone=harms[activations] if both else None,
            left_out=harms[whole - part],
        )
        rows.append(row)
    return tuple(sorted(rows, key=lambda row: row.alone.rank, reverse=True))


def save_sensitivity(found: Sensitivity, folder: Path) -> bytes:
    """Write ``sensitivity.json`` and ``sensitivity.png`` into ``folder``; the picture is returned too."""
    plot = plot_sensitivity(found)
    found.save(folder / "sensitivity.json")
    write_bytes(folder / "sensitivity.png", plot)
    return plot
