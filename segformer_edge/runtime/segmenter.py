"""``Segmenter``: an exported file and its metadata as one function from image to label map. Torch-free."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segformer_edge.data.processing import Preprocessing, dequantize
from segformer_edge.errors import ArtifactError
from segformer_edge.runtime.base import Runtime, load_runtime
from segformer_edge.runtime.frame import FrameTools
from segformer_edge.runtime.latency import FrameTimes, Stopwatch, grey_image, measure_latency
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
        self._of_thread = threading.local()

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], threads: int = 1, verify: bool = True, reference: bool = False
    ) -> Segmenter:
        """Load ``path`` (.pte, .tflite, .xml or .onnx with its .json beside it) on ``threads`` CPU threads.

        OpenCV, which resizes the frame, gets as many; it has one number for the whole process. ``verify`` compares
        every file with the hash taken at export. ``reference`` runs a ``.tflite`` with LiteRT's reference kernels in
        place of XNNPACK: many times slower, and the same bits on x86-64 and 64-bit ARM. Raises ArtifactError for a
        missing, damaged or changed file, MissingBackendError where the runtime is not installed, UsageError for another
        kind of file, and for ``reference`` with one that is no ``.tflite``.
        """
        path = Path(path)
        metadata = ArtifactMetadata.load(path, verify=verify)
        runtime = load_runtime(path, metadata, threads, reference)
        cv2.setNumThreads(threads)
        return cls(metadata, runtime)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of class 0, 1, ..."""
        return self.metadata.class_names

    @property
    def palette(self) -> npt.NDArray[np.uint8]:
        """RGB colour of each class, (classes, 3)."""
        return np.array(self.metadata.palette, dtype=np.uint8)

    def __call__(
        self, image: npt.NDArray[np.uint8], order: str = "rgb", out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """uint8 image (H, W, 3) -> label map uint8 (H, W). Logits of that size never exist.

        ``order`` is "bgr" for an image as OpenCV reads it. ``out`` is a uint8 array (H, W) to write the labels into.
        With it, frames of one size need no new memory but the runtime's own. Raises DataError for anything but such an
        image, and for an ``out`` that does not fit.
        """
        return self.timed(image, order, out)[0]

    def timed(
        self, image: npt.NDArray[np.uint8], order: str = "rgb", out: npt.NDArray[np.uint8] | None = None
    ) -> tuple[npt.NDArray[np.uint8], FrameTimes]:
        """As calling it, and how long each part took; waiting for another thread's inference counts as inference."""
        watch = Stopwatch()
        batch = self._tools.batch(image, order)
        preprocess = watch.lap_ms()
        output = self.infer(batch)
        inference = watch.lap_ms()
        labels = self._tools.labels(output, (image.shape[0], image.shape[1]), out)
        return labels, FrameTimes(preprocess, inference, watch.lap_ms())

    def logits(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 RGB image -> the network's logits float32 (C, h, w) at its own output size, dequantized.

        Raises ArtifactError for a file whose output is a label map.
        """
        if self.metadata.output.kind != "logits":
            raise ArtifactError(
                f"'{self.metadata.file}' gives labels, not logits.",
                hint="Export it with: python -m segformer_edge.quantize --output logits",
            )
        spec = self.metadata.output
        logits = dequantize(self.infer(self.prepare(image))[0], spec.scale, spec.zero_point)
        return logits if spec.layout == "nchw" else np.ascontiguousarray(logits.transpose(2, 0, 1))

    def prepare(self, image: npt.NDArray[np.uint8]) -> np.ndarray:
        """uint8 RGB image -> the batch that ``infer`` takes, in the file's size, layout and dtype."""
        return self._tools.batch(image).copy()

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """The network alone: a prepared batch -> the raw output, integers where the file's output is quantized."""
        with self._lock:
            return self.runtime.run(batch)

    def latency_ms(self, runs: int = 20, warm_up: int = 2) -> list[float]:
        """Milliseconds of each of ``runs`` inferences (the network alone) on a grey image, after ``warm_up`` more."""
        return measure_latency(self.infer, self.prepare(grey_image(self.metadata.size)), runs, warm_up)

    @property
    def _tools(self) -> FrameTools:
        """This thread's own: their buffers hold one frame."""
        if not hasattr(self._of_thread, "tools"):
            self._of_thread.tools = FrameTools(self.metadata, self.preprocessing)
        return self._of_thread.tools
