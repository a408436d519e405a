"""How far a quantized network is from its float self, on fixed images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer_edge.data.metrics import ConfusionMatrix
from segformer_edge.data.processing import Preprocessing, labels_from_logits
from segformer_edge.data.sample import Sample


@dataclass(frozen=True)
class Scores:
    """One network against float32 on the same images; shares and mIoU are fractions."""

    #: Float mIoU minus this network's.
    miou_drop: float
    #: KL(float || quantized) of the softmax at the logits' size, nats, mean over pixels.
    kl: float
    #: Share of pixels, at the labels' size, with the float network's class.
    agreement: float
    #: Signal to quantization noise of the logits in dB, mean over images.
    sqnr_db: float


class Yardstick:
    """Keeps ``samples`` as network inputs with the float network's logits (C, h, w) and label maps."""

    def __init__(self, network: nn.Module, samples: Sequence[Sample], preprocessing: Preprocessing, classes: int):
        self._samples, self._classes = samples, classes
        self._inputs = [torch.from_numpy(preprocessing(sample.image)) for sample in samples]
        self._logits = [self._infer(network, image) for image in self._inputs]
        self._maps = [self._labels(logits, sample) for logits, sample in zip(self._logits, samples, strict=True)]
        self.float_miou = self._miou(self._maps)

    @staticmethod
    @torch.inference_mode()
    def _infer(network: nn.Module, image: Tensor) -> Tensor:
        return network(image)[0]

    @staticmethod
    def _labels(logits: Tensor, sample: Sample) -> np.ndarray:
        return labels_from_logits(logits.numpy(), (sample.labels.shape[0], sample.labels.shape[1]))

    def _miou(self, maps: Sequence[np.ndarray]) -> float:
        matrix = ConfusionMatrix(self._classes)
        for sample, labels in zip(self._samples, maps, strict=True):
            matrix.update(sample.labels, labels)
        return matrix.miou

    def score(self, network: nn.Module) -> Scores:
        """Run ``network`` on every image and compare."""
        maps, kl, sqnr, equal, pixels = [], 0.0, 0.0, 0, 0
        for sample, image, logits, labels in zip(self._samples, self._inputs, self._logits, self._maps, strict=True):
            got = self._infer(network, image)
            expected = F.log_softmax(logits.double(), 0)
            kl += (expected.exp() * (expected - F.log_softmax(got.double(), 0))).sum(0).mean().item()
            noise = (got.double() - logits).square().sum().item()
            sqnr += 10.0 * math.log10(logits.double().square().sum().item() / max(noise, 1e-30))
            maps.append(self._labels(got, sample))
            equal, pixels = equal + int((maps[-1] == labels).sum()), pixels + labels.size
        count = len(maps)
        return Scores(self.float_miou - self._miou(maps), kl / count, equal / pixels, sqnr / count)
