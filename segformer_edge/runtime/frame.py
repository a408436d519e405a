"""What stands before and behind an inference of an exported file: a frame as its input, its output as a label map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segformer_edge.data.label_upsampling import LabelMapUpsampler
from segformer_edge.data.processing import Preprocessing
from segformer_edge.data.upsampling import LabelUpsampler
from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.metadata import ArtifactMetadata


class FrameTools:
    """Pre- and post-processing of frame after frame in the same buffers. Not thread-safe: one for each thread."""

    def __init__(self, metadata: ArtifactMetadata, preprocessing: Preprocessing) -> None:
        self._metadata = metadata
        spec = metadata.input
        self._input = preprocessing.network_input(spec.dtype, spec.scale, spec.zero_point, spec.layout)
        self._upsampler: LabelUpsampler | LabelMapUpsampler | None = None

    def batch(self, image: npt.NDArray[np.uint8], order: str = "rgb") -> np.ndarray:
        """uint8 image (H, W, 3), "rgb" or "bgr" -> the network's input, in memory that the next call writes again.

        Raises DataError for anything but such an image, UsageError for another order.
        """
        return self._input(image, order)

    def labels(
        self, output: np.ndarray, size: tuple[int, int], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """The network's raw output -> label map uint8 ``size`` (H, W), written into ``out`` where it is given.

        Logits are upsampled bilinearly, then argmax; of a label map, each pixel takes the class of most weight around
        it. Raises ArtifactError for an output with NaN, infinity or labels that are no class, DataError for an ``out``
        that does not fit.
        """
        values = self._label_map(output) if self._metadata.output.kind == "labels" else output[0]
        if self._upsampler is None or self._upsampler.size != size:
            self._upsampler = self._upsampler_for(values, size)
        return self._upsampler(values, out)

    def _upsampler_for(self, values: np.ndarray, size: tuple[int, int]) -> LabelUpsampler | LabelMapUpsampler:
        spec = self._metadata.output
        if spec.kind == "labels":
            return LabelMapUpsampler(values.shape, size)
        return LabelUpsampler(values.shape, values.dtype, size, spec.layout)

    def _label_map(self, output: np.ndarray) -> npt.NDArray[np.uint8]:
        if output.ndim == 4:
            output = output[:, 0] if self._metadata.output.layout == "nchw" else output[..., 0]
        labels = output[0] if output.ndim == 3 else output
        classes = len(self._metadata.class_names)
        if labels.min() < 0 or labels.max() >= classes:
            raise ArtifactError(
                f"'{self._metadata.file}' gave labels {labels.min()} to {labels.max()} for {classes} classes."
            )
        return labels.astype(np.uint8)
