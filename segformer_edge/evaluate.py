"""``python -m segformer_edge.evaluate FILE --data DATASET`` and ``segformer_edge.evaluate(file, data=...)``."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segformer_edge.callable_module import make_callable
from segformer_edge.cli import EXIT_OK, FILL_DIR, Parser, on_terminal, print_next, run, unused_folder
from segformer_edge.data.specs import dataset_specs
from segformer_edge.options import Size, at_least, size_of

if TYPE_CHECKING:
    from segformer_edge.scoring import FileEvaluation


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser("python -m segformer_edge.evaluate", "mIoU of an exported file or of a float checkpoint.")
    parser.add_argument("file", metavar="FILE", help="an exported file, or 'demo', a folder, a .pth or a hub id")
    parser.add_argument("--data", required=True, metavar="DATASET", help=", ".join(dataset_specs()))
    parser.add_argument("--size", metavar="HxW", help="network input of a checkpoint, like 512 or 384x512")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1)")
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    return parser


def evaluate(
    file: str | os.PathLike[str],
    *,
    data: str,
    size: Size | None = None,
    limit: int | None = None,
    threads: int = 1,
) -> FileEvaluation:
    """Score ``file`` on ``data``; the options are those of ``python -m segformer_edge.evaluate``.

    ``file`` is an exported file with its .json beside it, or a checkpoint: "demo", a folder, a file, a hub id. ``data``
    is "demo", "camvid:DIR:val", "ade20k:DIR", "cityscapes:DIR" or "folder:DIR". ``size``, for a checkpoint, is a side
    or (height, width), multiples of 32; ``limit`` takes the first images alone.

    Returns an EvaluationResult with what was scored and its latency. mIoU and IoUs are fractions, times milliseconds.
    Raises UsageError, DataError, CheckpointError, ArtifactError and MissingBackendError, each with its remedy.
    """
    pair = size_of(size)
    at_least(1, threads=threads)

    from segformer_edge.scoring import score

    return score(os.fspath(file), data, pair, limit, threads, bars=on_terminal())


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    options = build_parser().parse_args(argv)
    result = evaluate(
        options.file, data=options.data, size=options.size, limit=options.limit, threads=options.threads
    )  # fmt: skip
    if options.json:
        print(json.dumps(result.to_json(), indent=2, allow_nan=False))
        return EXIT_OK
    _print(result)

    from segformer_edge.scoring import is_artifact

    if is_artifact(options.file):
        print_next("python", "-m", "segformer_edge.profile", options.file)
    else:
        _print_quantize(options.file, options.data, options.size)
    return EXIT_OK


def _print_quantize(weights: str, data: str, size: str | None) -> None:
    """The command that makes files of the checkpoint and scores them as it was."""
    sized = ("--size", size) if size else ()
    # The demo brings the images to calibrate on.
    images = () if weights == "demo" else ("--calibration", "DIR")
    out = unused_folder(f"out/{Path(weights).name.partition('.')[0] or 'first'}")
    print_next(
        "python", "-m", "segformer_edge.quantize", "--weights", weights, *sized, *images, "--eval", data, "--out", out,
        fill=FILL_DIR if images else "",
    )  # fmt: skip


def _print(result: FileEvaluation) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from segformer_edge.report.table import console_for

    console = console_for()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    table.add_column("IoU", justify="right")
    for name, iou in result.iou_by_name(result.class_names).items():
        table.add_row(Text(name), "-" if iou is None else f"{iou:.4f}")
    table.add_section()
    table.add_row("mIoU", f"{result.miou:.4f}")
    table.add_row("pixel accuracy", f"{result.pixel_accuracy:.4f}")
    scored, latency = result.scored, result.latency_ms
    height, width = scored.size
    tools = ", ".join(f"{name} {version}" for name, version in scored.tools.items())
    console.print(Text(f"{scored.file} ({scored.format}, {height}x{width}, {tools})"), soft_wrap=True)
    console.print(table)
    console.print(
        f"{result.images} images of {result.dataset} in {result.seconds:.1f} s | network {latency.median:.1f} ms, with "
        f"pre- and postprocessing {statistics.median(result.predict_ms):.1f} ms (median, {latency.threads} thread"
        f"{'s' * (latency.threads > 1)}, {latency.device})",
        soft_wrap=True,
    )


if __name__ == "__main__":
    from segformer_edge.guard import stand_guard

    stand_guard()
    sys.exit(run(main))
make_callable(__name__, evaluate)
