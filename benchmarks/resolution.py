"""Resolution robustness (the paper's Table 1c): calibrated at one size, run at others, float32 beside INT8.

    python benchmarks/resolution.py --weights DIR --data camvid:DIR:val --calibration DIR

The encodings of ``--size`` are used at every other size and compared with those found at that size itself. Every INT8
figure is a file's (``--target``) in its own runtime, not the reference's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from segformer_edge.cli import Parser, parse_size, run
from segformer_edge.data.datasets import open_dataset
from segformer_edge.export.targets import choose_targets
from segformer_edge.pipeline import quantize
from segformer_edge.prepare import QuantizeOptions
from segformer_edge.progress import progress_for_terminal
from segformer_edge.report.schema import Report

SIZES = ("320x416", "384x512", "480x640")


def figures(report: Report) -> dict[str, float | str | None]:
    """float32 and file mIoU of one run, and why a file has none."""
    target = report.targets[0]
    return {"fp32": report.reference.fp32_miou, "int8": target.miou, "error": target.error}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns 1 if any file failed."""
    parser = Parser("python benchmarks/resolution.py", "Float32 and INT8 at several input sizes.")
    parser.add_argument("--weights", default="demo", help="as for segformer_edge.quantize")
    parser.add_argument("--data", required=True, metavar="DATASET", help="like camvid:DIR:val")
    parser.add_argument("--calibration", type=Path, required=True, metavar="DIR", help="images to calibrate on")
    parser.add_argument("--encodings", type=Path, metavar="FILE", help="encodings for --size, as from training")
    parser.add_argument("--size", default="384x512", metavar="HxW", help="where the encodings come from")
    parser.add_argument("--sizes", default=",".join(SIZES), metavar="LIST", help="where to run")
    parser.add_argument("--recipe", default="mixed", help="precision recipe")
    parser.add_argument("--target", default="onnx", help="whose files to run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(argv)
    base, sizes = parse_size(options.size), [parse_size(size) for size in options.sizes.split(",")]
    job = QuantizeOptions(
        out=Path(),
        weights=options.weights,
        calibration=options.calibration,
        dataset=open_dataset(options.data),
        targets=choose_targets([options.target]),
        recipe=options.recipe,
        max_drop=100.0,
    )
    rows: dict[str, dict[str, dict[str, float | str | None]]] = {}
    with TemporaryDirectory() as folder, progress_for_terminal() as tell:
        here = Path(folder)
        encodings = options.encodings
        if encodings is None:
            quantize(replace(job, out=here / "base", size=base, dataset=None), tell)
            encodings = here / "base" / "encodings.json"
        for height, width in sizes:
            name = f"{height}x{width}"
            moved = replace(job, out=here / f"moved-{name}", size=(height, width), encodings=encodings, recipe=None)
            own = replace(job, out=here / f"own-{name}", size=(height, width))
            rows[name] = {"base": figures(quantize(moved, tell))}
            rows[name]["own"] = rows[name]["base"] if (height, width) == base else figures(quantize(own, tell))
    print(f"{'size':>10} {'float32':>9} {f'ranges of {options.size}':>20} {'ranges of the size':>20}")
    for name, row in rows.items():
        scores = [row["base"]["fp32"], row["base"]["int8"], row["own"]["int8"]]
        print("{:>10} {:>9} {:>20} {:>20}".format(name, *("-" if s is None else f"{s:.4f}" for s in scores)))
    if options.json:
        options.json.write_text(
            json.dumps({"target": options.target, "recipe": options.recipe, "sizes": rows}, indent=2)
        )
    return int(any(part["error"] for row in rows.values() for part in row.values()))


if __name__ == "__main__":
    sys.exit(run(main))
