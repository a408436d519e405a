"""``Segmenter``: an exported file and its metadata as one function from image to label map. Torch-free."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segformer_edge.data.processing import Preprocessing, dequantize, labels_from_logits, resize_labels
from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.base import Runtime, load_runtime
from segformer_edge.runtime.latency import grey_image, measure_latency
from segformer_edge.runtime.metadata import ArtifactMetadata


class Segmenter:
    """Segments images with an exported file: ``labels = Segmenter.load("out/model.tflite")(image)``.

    Threads may share one Segmenter: a lock runs their inferences one after the other.
    """

    def __init__(self, metadata: ArtifactMetadata, runtime: Runtime) -> None:
        self.metadata = metadata
        self.runtime = runtime
        self.preprocessing = Preprocessing(metadata.size, metadata.normalisation.mean, metadata.normalisation.std)
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: str | os.PathLike[str], threads: int = 1, verify: bool = True) -> Segmenter:
        """Load ``path`` (.pte, .tflite, .xml or .onnx with its .json beside it) on ``threads`` CPU threads.

        ``verify`` compares every file with the hash taken at export. Raises ArtifactError for a missing, damaged or
        changed file, MissingBackendError where the runtime is not installed, UsageError for another kind of file.
        """
        path = Path(path)
        metadata = ArtifactMetadata.load(path, verify=verify)
        return cls(metadata, load_runtime(path, metadata, threads))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of class 0, 1, ..."""
        return self.metadata.class_names

    @property
    def palette(self) -> npt.NDArray[np.uint8]:
        """RGB colour of each class, (classes, 3)."""
        return np.array(self.metadata.palette, dtype=np.uint8)

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """uint8 RGB image (H, W, 3) -> label map uint8 (H, W). Raises DataError for anything but such an image."""
        size = (image.shape[0], image.shape[1]) if getattr(image, "ndim", 0) == 3 else (0, 0)
        output = self.infer(self.prepare(image))
        if self.metadata.output.kind == "labels":
            return resize_labels(self._label_map(output), size)
        return labels_from_logits(self._logits(output), size)

    def logits(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 RGB image -> the network's logits float32 (C, h, w) at its own output size, dequantized.

        Raises ArtifactError for a file whose output is a label map.
        """
        if self.metadata.output.kind != "logits":
            raise ArtifactError(
                f"'{self.metadata.file}' gives labels, not logits.",
                hint="Export it with: python -m segformer_edge.quantize --output logits",
            )
        return self._logits(self.infer(self.prepare(image)))

    def prepare(self, image: npt.NDArray[np.uint8]) -> np.ndarray:
        """uint8 RGB image -> the batch that ``infer`` takes, in the file's size, layout and dtype."""
        spec = self.metadata.input
        if spec.dtype == "float32":
            return self.preprocessing(image, spec.layout)
        assert spec.scale is not None and spec.zero_point is not None  # the metadata's validation saw to it
        return self.preprocessing.quantized(image, spec.dtype, spec.scale, spec.zero_point, spec.layout)

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """The network alone: a prepared batch -> the raw output, integers where the file's output is quantized."""
        with self._lock:
            return self.runtime.run(batch)

    def latency_ms(self, runs: int = 20, warm_up: int = 2) -> list[float]:
        """Milliseconds of each of ``runs`` inferences (the network alone) on a grey image, after ``warm_up`` more."""
        return measure_latency(self.infer, self.prepare(grey_image(self.metadata.size)), runs, warm_up)

    def _logits(self, output: np.ndarray) -> npt.NDArray[np.float32]:
        spec = self.metadata.output
        logits = dequantize(output[0], spec.scale, spec.zero_point)
        return logits if spec.layout == "nchw" else np.ascontiguousarray(logits.transpose(2, 0, 1))

    def _label_map(self, output: np.ndarray) -> npt.NDArray[np.uint8]:
        spec = self.metadata.output
        if output.ndim == 4:
            output = output[:, 0] if spec.layout == "nchw" else output[..., 0]
        labels = output[0] if output.ndim == 3 else output
        if labels.min() < 0 or labels.max() >= len(self.class_names):
            raise ArtifactError(
                f"'{self.metadata.file}' gave labels {labels.min()} to {labels.max()} "
                f"for {len(self.class_names)} classes."
            )
        return labels.astype(np.uint8)
