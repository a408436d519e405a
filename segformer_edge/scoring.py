"""Scores an exported file, or a float checkpoint, on a data set: what ``segformer_edge.evaluate`` does."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.processing import Preprocessing
from segformer_edge.errors import UsageError
from segformer_edge.evaluation import (
    EvaluationResult,
    Predictor,
    TorchSegmenter,
    check_classes,
    evaluate,
    summarise_latency,
)
from segformer_edge.report.schema import Latency
from segformer_edge.runtime.formats import FORMATS, exported_files
from segformer_edge.runtime.segmenter import Segmenter

#: What a folder of weights has, and one of exported files has not.
_WEIGHTS = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What was scored: a file in its runtime, or float weights in torch."""

    file: str
    #: b0 to b5, or null for widths and depths of their own.
    model: str | None
    format: str
    #: Network input, (height, width).
    size: tuple[int, int]
    #: "logits" or "labels".
    output: str
    class_names: tuple[str, ...]
    #: Runtime -> its version.
    tools: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class FileEvaluation(EvaluationResult):
    """An EvaluationResult, what it is of, and the network's own latency on this machine."""

    scored: Scored
    dataset: str
    #: Names of the data set's classes, in the order of ``per_class_iou``.
    class_names: tuple[str, ...]
    latency_ms: Latency

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints; a figure that is not known is None."""
        return {
            "schema_version": 1,
            "file": self.scored.file,
            "model": self.scored.model,
            "format": self.scored.format,
            "size": list(self.scored.size),
            "output": self.scored.output,
            "dataset": self.dataset,
            "images": self.images,
            "seconds": self.seconds,
            "miou": None if math.isnan(self.miou) else self.miou,
            "pixel_accuracy": None if math.isnan(self.pixel_accuracy) else self.pixel_accuracy,
            "per_class_iou": self.iou_by_name(self.class_names),
            "latency_ms": asdict(self.latency_ms),
            "predict_ms": statistics.median(self.predict_ms),
            "tools": dict(self.scored.tools),
        }


def score(
    file: str, data: str, size: tuple[int, int] | None, limit: int | None, threads: int, bars: bool = False
) -> FileEvaluation:
    """Score ``file`` on the data set ``data``; raises as ``segformer_edge.evaluate`` says."""
    dataset = open_dataset(data)
    predictor, scored = (_artifact if is_artifact(file) else _checkpoint)(file, size, threads)
    check_classes(file, scored.class_names, dataset)
    result = evaluate(predictor, dataset, limit=limit, description=Path(file).name, progress=bars)
    latency = summarise_latency(predictor.latency_ms(runs=5, warm_up=1), threads)
    names = tuple(dataset.class_names)
    return FileEvaluation(**vars(result), scored=scored, dataset=dataset.name, class_names=names, latency_ms=latency)


def is_artifact(file: str) -> bool:
    """Whether ``file`` is named as an exported file is, and not as a checkpoint."""
    suffixes = {suffix for entry in FORMATS for suffix in (entry.suffix, *entry.companions)}
    return Path(file).suffix.lower() in {*suffixes, ".json"} and not Path(file).is_dir()


def _artifact(file: str, size: tuple[int, int] | None, threads: int) -> tuple[Predictor, Scored]:
    segmenter = Segmenter.load(file, threads=threads)
    metadata = segmenter.metadata
    if size is not None and size != metadata.size:
        height, width = metadata.size
        raise UsageError(
            f"'{file}' was exported for {height}x{width}, not {size[0]}x{size[1]}.",
            hint=f"Leave --size out, or export again with --size {size[0]}x{size[1]}.",
        )
    return segmenter, Scored(
        file=file,
        model=metadata.model,
        format=metadata.format,
        size=metadata.size,
        output=metadata.output.kind,
        class_names=segmenter.class_names,
        tools=segmenter.runtime.versions,
    )


def _checkpoint(source: str, size: tuple[int, int] | None, threads: int) -> tuple[Predictor, Scored]:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UsageError(
            f"'{source}' is no exported file, and a float checkpoint needs torch, which is not installed.",
            hint="pip install 'segformer-edge[model]', or name a .pte, .tflite, .xml or .onnx file.",
        ) from error
    from segformer_edge.model.checkpoint import load_checkpoint

    _check_folder(Path(source))
    loaded = load_checkpoint(source)
    torch.set_num_threads(threads)
    size = size or loaded.default_size
    return TorchSegmenter(loaded.model, Preprocessing(size)), Scored(
        file=source,
        model=loaded.variant,
        format="torch float32",
        size=size,
        output="logits",
        class_names=loaded.class_names,
        tools={"torch": torch.__version__},
    )


def _check_folder(folder: Path) -> None:
    """Raise UsageError for a folder that holds exported files and no weights."""
    if not folder.is_dir():
        return
    files = exported_files(folder)
    # A folder of the hub may hold an .onnx beside its weights.
    weights = (path for path in folder.iterdir() if path.suffix in _WEIGHTS or path.name == "config.json")
    if files and not any(weights):
        raise UsageError(
            f"'{folder}' is a folder of exported files.", hint=f"Name one of them: {', '.join(map(str, files))}"
        )
