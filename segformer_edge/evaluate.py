"""``python -m segformer_edge.evaluate FILE --data DATASET``: mIoU of an exported file or of a float checkpoint."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segformer_edge.cli import Parser, parse_size, run
from segformer_edge.data.processing import Preprocessing
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import UsageError
from segformer_edge.evaluation import (
    EvaluationResult,
    Predictor,
    TorchSegmenter,
    check_classes,
    evaluate,
    summarise_latency,
)
from segformer_edge.guard import stand_guard
from segformer_edge.report.schema import Latency
from segformer_edge.runtime.formats import FORMATS
from segformer_edge.runtime.segmenter import Segmenter


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    parser = Parser("python -m segformer_edge.evaluate", "mIoU of an exported file or of a float checkpoint.")
    parser.add_argument("file", metavar="FILE", help="an exported file, or 'demo', a folder, a .pth or a hub id")
    parser.add_argument("--data", required=True, metavar="DATASET", help="demo, camvid:DIR:val, ade20k:DIR, folder:DIR")
    parser.add_argument("--size", metavar="HxW", help="network input of a checkpoint, like 512 or 384x512")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1)")
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    options = parser.parse_args(argv)
    size = parse_size(options.size) if options.size else None
    if options.threads < 1:
        raise UsageError(f"--threads is at least 1; got {options.threads}.")

    from segformer_edge.data.datasets import open_dataset

    dataset = open_dataset(options.data)
    predictor: Predictor
    if _is_artifact(options.file):
        predictor, about = _artifact(options.file, size, options.threads)
    else:
        predictor, about = _checkpoint(options.file, size, options.threads)
    check_classes(options.file, about["class_names"], dataset)
    result = evaluate(predictor, dataset, limit=options.limit, description=Path(options.file).name)
    latency = summarise_latency(predictor.latency_ms(runs=5, warm_up=1), options.threads)
    if options.json:
        print(json.dumps(_as_json(options.file, about, dataset, result, latency), indent=2, allow_nan=False))
    else:
        _print(options.file, about, dataset, result, latency)
    return 0


def _is_artifact(file: str) -> bool:
    suffixes = {suffix for entry in FORMATS for suffix in (entry.suffix, *entry.companions)}
    return Path(file).suffix.lower() in {*suffixes, ".json"} and not Path(file).is_dir()


def _artifact(file: str, size: tuple[int, int] | None, threads: int) -> tuple[Segmenter, dict[str, Any]]:
    segmenter = Segmenter.load(file, threads=threads)
    metadata = segmenter.metadata
    if size is not None and size != metadata.size:
        height, width = metadata.size
        raise UsageError(
            f"'{file}' was exported for {height}x{width}, not {size[0]}x{size[1]}.",
            hint=f"Leave --size out, or export again with --size {size[0]}x{size[1]}.",
        )
    about = {"model": metadata.model, "format": metadata.format, "size": metadata.size, "output": metadata.output.kind}
    return segmenter, {**about, "class_names": segmenter.class_names, "tools": segmenter.runtime.versions}


def _checkpoint(source: str, size: tuple[int, int] | None, threads: int) -> tuple[TorchSegmenter, dict[str, Any]]:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UsageError(
            f"'{source}' is no exported file, and a float checkpoint needs torch, which is not installed.",
            hint="pip install 'segformer-edge[model]', or name a .pte, .tflite, .xml or .onnx file.",
        ) from error
    from segformer_edge.model.checkpoint import load_checkpoint

    loaded = load_checkpoint(source)
    torch.set_num_threads(threads)
    size = size or loaded.default_size
    about = {"model": loaded.variant, "format": "torch float32", "size": size, "output": "logits"}
    tools = {"torch": torch.__version__}
    return TorchSegmenter(loaded.model, Preprocessing(size)), {
        **about, "class_names": loaded.class_names, "tools": tools,
    }  # fmt: skip


def _as_json(
    file: str, about: Mapping[str, Any], dataset: SegmentationDataset, result: EvaluationResult, latency: Latency
) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "file": file,
        "model": about["model"],
        "format": about["format"],
        "size": list(about["size"]),
        "output": about["output"],
        "dataset": dataset.name,
        "images": result.images,
        "seconds": result.seconds,
        "miou": None if math.isnan(result.miou) else result.miou,
        "pixel_accuracy": None if math.isnan(result.pixel_accuracy) else result.pixel_accuracy,
        "per_class_iou": result.iou_by_name(dataset.class_names),
        "latency_ms": asdict(latency),
        "predict_ms": statistics.median(result.predict_ms),
        "tools": dict(about["tools"]),
    }


def _print(
    file: str, about: Mapping[str, Any], dataset: SegmentationDataset, result: EvaluationResult, latency: Latency
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from segformer_edge.report.table import console_for

    console = console_for()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    table.add_column("IoU", justify="right")
    for name, iou in result.iou_by_name(dataset.class_names).items():
        table.add_row(Text(name), "-" if iou is None else f"{iou:.4f}")
    table.add_section()
    table.add_row("mIoU", f"{result.miou:.4f}")
    table.add_row("pixel accuracy", f"{result.pixel_accuracy:.4f}")
    height, width = about["size"]
    tools = ", ".join(f"{name} {version}" for name, version in about["tools"].items())
    console.print(Text(f"{file} ({about['format']}, {height}x{width}, {tools})"), soft_wrap=True)
    console.print(table)
    console.print(
        f"{result.images} images of {dataset.name} in {result.seconds:.1f} s | network {latency.median:.1f} ms, with "
        f"pre- and postprocessing {statistics.median(result.predict_ms):.1f} ms (median, {latency.threads} thread"
        f"{'s' * (latency.threads > 1)}, {latency.device})",
        soft_wrap=True,
    )


if __name__ == "__main__":
    stand_guard()
    sys.exit(run(main))
