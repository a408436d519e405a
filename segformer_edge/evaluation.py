"""Scoring a predictor on a data set. One protocol for the float model, the quantized reference and every file.

The image is resized to the network's size, its logits are upsampled bilinearly (half-pixel centres) to the size of the
label map, then argmax; one confusion matrix over all images.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from segformer_edge.cli import on_terminal
from segformer_edge.data.metrics import ConfusionMatrix
from segformer_edge.data.processing import Preprocessing, labels_from_logits, resize_labels
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import ArtifactError, DataError, UsageError
from segformer_edge.report.schema import Latency
from segformer_edge.runtime.latency import grey_image, measure_latency

if TYPE_CHECKING:
    import torch

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]


class Predictor(Protocol):
    """What ``Segmenter`` and ``TorchSegmenter`` share."""

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]: ...

    def logits(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]: ...

    def latency_ms(self, runs: int = 20, warm_up: int = 2) -> list[float]: ...


#: A folder's masks may use only some of the classes.
_NAME_THEM = (
    " Where the masks use only some of these classes: write DIR/classes.txt with the names of all of them, one a line, "
    "in the order of the weights."
)


class LabelMaps(Sequence[npt.NDArray[np.uint8]]):
    """Label maps kept compressed, about a hundredth of their size: a whole validation set fits in memory."""

    def __init__(self) -> None:
        self._maps: list[tuple[tuple[int, ...], bytes]] = []

    def append(self, labels: npt.NDArray[np.uint8]) -> None:
        """Keep a copy of ``labels``."""
        self._maps.append((labels.shape, zlib.compress(np.ascontiguousarray(labels, dtype=np.uint8).data, 1)))

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        shape, packed = self._maps[index]
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)


@dataclass(frozen=True)
class EvaluationResult:
    """Scores are fractions; a class that is in neither labels nor predictions has no IoU (None)."""

    miou: float
    per_class_iou: tuple[float | None, ...]
    pixel_accuracy: float
    images: int
    #: Wall time of the whole evaluation, reading the images included.
    seconds: float
    #: Milliseconds of each prediction: preprocessing, network and postprocessing.
    predict_ms: tuple[float, ...]
    #: Share of equal pixels, over all images, with each of the label maps it was compared with.
    agreement: Mapping[str, float] = field(default_factory=dict)
    #: One label map an image, where they were asked for.
    predictions: LabelMaps | None = None

    def iou_by_name(self, class_names: Sequence[str]) -> dict[str, float | None]:
        """Class name -> IoU, in the data set's order."""
        return dict(zip(class_names, self.per_class_iou, strict=True))


def evaluate(
    predict: Predict,
    dataset: SegmentationDataset,
    *,
    progress: bool = True,
    limit: int | None = None,
    keep_predictions: bool = False,
    compare: Mapping[str, Sequence[npt.NDArray[np.uint8]]] | None = None,
    description: str = "evaluate",
) -> EvaluationResult:
    """Score ``predict`` (uint8 RGB image -> uint8 label map of its size) on the first ``limit`` samples of ``dataset``.

    ``compare`` gives other predictors' label maps on the same samples, such as the ``predictions`` of an earlier
    result, whose pixel agreement is counted on the way. ``progress`` shows a bar if stderr is a terminal.

    Raises DataError for an empty data set or unreadable sample, UsageError for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"The number of images to evaluate is at least 1; got {limit}.")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count == 0:
        raise DataError(f"The data set '{dataset.name}' holds no images.")
    references = dict(compare or {})
    for name, maps in references.items():
        if len(maps) < count:
            raise ValueError(f"{len(maps)} label maps of '{name}' to compare {count} predictions with")
    matrix = ConfusionMatrix(dataset.num_classes)
    kept = LabelMaps() if keep_predictions else None
    equal = dict.fromkeys(references, 0)
    pixels, taken = 0, []
    begin = time.perf_counter()
    for i in _with_bar(range(count), description, progress):
        sample = dataset[i]
        start = time.perf_counter()
        prediction = predict(sample.image)
        taken.append((time.perf_counter() - start) * 1e3)
        if prediction.shape != sample.labels.shape:
            raise DataError(
                f"'{sample.name}': the image is {sample.image.shape[:2]}, its labels {sample.labels.shape}."
            )
        matrix.update(sample.labels, prediction)
        pixels += prediction.size
        for name, maps in references.items():
            equal[name] += int(np.count_nonzero(maps[i] == prediction))
        if kept is not None:
            kept.append(prediction)
    return EvaluationResult(
        miou=matrix.miou,
        per_class_iou=tuple(None if math.isnan(iou) else float(iou) for iou in matrix.class_iou()),
        pixel_accuracy=matrix.pixel_accuracy,
        images=count,
        seconds=time.perf_counter() - begin,
        predict_ms=tuple(taken),
        agreement={name: same / pixels for name, same in equal.items()},
        predictions=kept,
    )


class TorchSegmenter:
    """A torch module, (1, 3, H, W) float32 -> logits (1, C, h, w) or labels (1, h, w), with ``Segmenter``'s methods."""

    def __init__(self, module: torch.nn.Module, preprocessing: Preprocessing) -> None:
        self.module = module.eval()
        self.preprocessing = preprocessing

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """uint8 RGB image (H, W, 3) -> label map uint8 (H, W). Raises DataError for anything but such an image."""
        output = self.infer(self.preprocessing(image))
        size = (image.shape[0], image.shape[1])
        if output.ndim == 3:
            return resize_labels(output[0].astype(np.uint8), size)
        return labels_from_logits(output[0], size)

    def logits(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 RGB image -> logits float32 (C, h, w). Raises ArtifactError for a module that gives labels."""
        output = self.infer(self.preprocessing(image))
        if output.ndim != 4:
            raise ArtifactError("This model gives labels, not logits.")
        logits: npt.NDArray[np.float32] = output[0]
        return logits

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """The network alone: float32 (1, 3, H, W) -> its output."""
        import torch

        with torch.inference_mode():
            output: np.ndarray = self.module(torch.from_numpy(batch)).numpy()
        return output

    def latency_ms(self, runs: int = 20, warm_up: int = 2) -> list[float]:
        """Milliseconds of each of ``runs`` inferences (the network alone), after ``warm_up`` more."""
        batch = self.preprocessing(grey_image(self.preprocessing.size))
        return measure_latency(self.infer, batch, runs, warm_up)


def summarise_latency(samples_ms: Sequence[float], threads: int) -> Latency:
    """Median and fastest of measured milliseconds, on this machine."""
    median, fastest = statistics.median(samples_ms), min(samples_ms)
    return Latency(median, fastest, threads, len(samples_ms), f"host {platform.machine()}")


def check_classes(what: str, class_names: Sequence[str], dataset: SegmentationDataset) -> None:
    """Raise UsageError unless ``what`` and ``dataset`` number the same classes."""
    if len(class_names) != dataset.num_classes:
        raise UsageError(
            f"'{what}' has {len(class_names)} classes ({_some(class_names)}), "
            f"the data set '{dataset.name}' has {dataset.num_classes} ({_some(dataset.class_names)}).",
            hint="Choose the data set the weights were trained on."
            + (_NAME_THEM if dataset.name.startswith("folder:") and dataset.num_classes < len(class_names) else ""),
        )
    if list(class_names) != list(dataset.class_names) and sorted(class_names) == sorted(dataset.class_names):
        raise UsageError(
            f"'{what}' and the data set '{dataset.name}' number the same classes differently: "
            f"{_some(class_names)} against {_some(dataset.class_names)}.",
            hint="List the data set's classes in the order of the weights.",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _with_bar(items: Sequence[int], description: str, wanted: bool) -> Iterator[int]:
    if not (wanted and on_terminal()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description, console=Console(stderr=True), transient=True)
