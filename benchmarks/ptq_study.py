"""Post-training methods side by side: how far each leaves the quantized network from float32.

    python benchmarks/ptq_study.py --weights DIR --data camvid:DIR:train --size 384x512 --recipe mixed

Calibrates on some images of ``--data`` and scores on others of it, evenly picked; ``--val`` scores on another data set
(keep it for the end). Prints a table and, with ``--json FILE``, writes it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from ptq.methods import METHODS, carry_out
from ptq.scores import Yardstick

from quantization.recipe import load_recipe
from segformer_edge.cli import Parser, parse_size, run
from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.processing import Preprocessing
from segformer_edge.data.sample import Sample, SegmentationDataset
from segformer_edge.errors import UsageError
from segformer_edge.evaluation import check_classes
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.suggestions import did_you_mean

COLUMNS = "{:26} {:>9} {:>10} {:>10} {:>8} {:>8}"


def _evenly(dataset: SegmentationDataset, count: int, part: int) -> list[Sample]:
    """``count`` samples evenly over the set; parts 0 and 1 never share one. Raises UsageError if there are too few."""
    if 2 * count > len(dataset):
        raise UsageError(f"'{dataset.name}' has {len(dataset)} images; {count} are at most half of them, please.")
    return [dataset[2 * (i * (len(dataset) // 2) // count) + part] for i in range(count)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    parser = Parser("python benchmarks/ptq_study.py", "Post-training quantization methods side by side.")
    parser.add_argument("--weights", default="demo", help="as for segformer_edge.quantize")
    parser.add_argument("--data", default="demo:dev", metavar="DATASET", help="to calibrate and, by default, score on")
    parser.add_argument("--val", metavar="DATASET", help="score on all of this one instead")
    parser.add_argument("--size", metavar="HxW", help="network input; default: the checkpoint's own")
    parser.add_argument("--recipe", default="mixed", help="name or TOML file; its [observers] are replaced")
    parser.add_argument("--calibrate", type=int, default=32, metavar="N", help="calibration images")
    parser.add_argument("--score", type=int, default=40, metavar="N", help="images to score on; no effect with --val")
    parser.add_argument("--methods", metavar="NAMES", help=f"some of {','.join(METHODS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there")
    options = parser.parse_args(argv)
    names = options.methods.split(",") if options.methods else list(METHODS)
    for name in names:
        if name not in METHODS:
            raise UsageError(f"Unknown method '{name}'.", hint=did_you_mean(name, METHODS))
    checkpoint, dataset = load_checkpoint(options.weights), open_dataset(options.data)
    check_classes(options.weights, checkpoint.class_names, dataset)
    height, width = checkpoint.default_size
    preprocessing = Preprocessing(parse_size(options.size or f"{height}x{width}"))
    network, recipe = EdgeSegFormer(checkpoint.model), load_recipe(options.recipe)
    images = [torch.from_numpy(preprocessing(s.image)) for s in _evenly(dataset, options.calibrate, 0)]
    judged = list(open_dataset(options.val)) if options.val else _evenly(dataset, options.score, 1)
    yardstick = Yardstick(network, judged, preprocessing, dataset.num_classes)
    print(
        f"recipe {recipe.name}, {options.weights}, {options.data}: {len(images)} images to calibrate; "
        f"{len(judged)} of {options.val or options.data} to score, float32 mIoU {yardstick.float_miou:.4f}"
    )
    print(COLUMNS.format("method", "mIoU drop", "KL, 1e-3", "agreement", "SQNR dB", "seconds"), flush=True)
    rows = []
    for name in names:
        begin = time.perf_counter()
        quantized = carry_out(METHODS[name], network, images, recipe)
        seconds = time.perf_counter() - begin
        row = {"method": name, **dataclasses.asdict(yardstick.score(quantized)), "seconds": seconds}
        rows.append(row)
        print(
            COLUMNS.format(
                name, f"{row['miou_drop']:+.4f}", f"{1e3 * row['kl']:.3f}", f"{row['agreement']:.2%}",
                f"{row['sqnr_db']:.2f}", f"{seconds:.1f}",
            ),
            flush=True,
        )  # fmt: skip
    if options.json:
        settings = {key: str(value) for key, value in vars(options).items() if value is not None}
        options.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
