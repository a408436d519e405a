"""``python -m segformer_edge.train``: train a SegFormer, in float or (``--qat``) quantization-aware.

Under ``accelerate launch -m segformer_edge.train ...`` the same options train on several devices or machines.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from segformer_edge.cli import FILL_DIR, Parser, print_next, run, unused_folder
from segformer_edge.errors import MissingBackendError, UsageError

#: File in ``--out`` with the trained weights, for ``--weights`` of the other commands.
WEIGHTS_FILE = "model.safetensors"
#: Beside it after --qat, for ``--encodings`` of quantize.
ENCODINGS_FILE = "encodings.json"


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser("python -m segformer_edge.train", "Train a SegFormer and write its best weights.")
    parser.add_argument("--recipe", help="bundled recipe or .toml file (default: demo; with --qat: qat)")
    parser.add_argument("--data", default="demo:train", help="training set (default: %(default)s)")
    parser.add_argument("--val", default="demo:dev", help="data set that picks the best weights, or 'none'")
    parser.add_argument("--test", help="data set on which the written weights are scored at the end")
    parser.add_argument("--model", help="b0 to b5 (default: what --init is, else b0)")
    parser.add_argument("--init", help="checkpoint to start from: folder, file or hub id (default: random weights)")
    parser.add_argument(
        "--class-map", type=Path, metavar="FILE", help="CSV, TOML or JSON: the data sets' classes -> the trained ones"
    )
    parser.add_argument("--steps", type=int, help="override the recipe's number of steps")
    parser.add_argument(
        "--size", help="HxW recorded as the weights' native size; with --qat also trained and scored at"
    )
    parser.add_argument("--qat", action="store_true", help="train the INT8 network; starts from --init")
    parser.add_argument("--quantization", metavar="NAME_OR_FILE", help="precision recipe for --qat (default: mixed)")
    parser.add_argument("--encodings", type=Path, metavar="FILE", help="quantization parameters that --qat starts from")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="images to find them on (default: the training set's)"
    )
    parser.add_argument("--float16", action="store_true", help="write half-size weights, and score those")
    parser.add_argument("--licence", help="licence recorded in the weights (default: the start weights', else none)")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, log and resume state")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads (1 is often fastest on a shared machine)")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --out")
    parser.add_argument("--cpu", action="store_true", help="use the CPU although there is a GPU")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. Raises SegformerEdgeError for anything a user can put right."""
    options = build_parser().parse_args(argv)
    _check(options)
    try:
        from segformer_edge.training.command import train_command
    except ModuleNotFoundError as error:
        if error.name in ("torch", "accelerate", "pydantic", "rich", "safetensors", "matplotlib"):
            raise MissingBackendError(f"Training needs {error.name}, which", "train") from None
        raise
    result = train_command(options)
    if result is None:
        return 0
    if options.json:
        print(json.dumps(result))
    else:
        scores = "".join(f", mIoU {score:.4f} on {name}" for name, score in result["miou"].items())
        print(f"{result['weights']}: {result['steps']} steps{scores}")
        if options.qat:
            starts = {"float start": result["float_miou"], "after calibration": result["ptq_miou"]}
            print(
                "".join(f"  {name}: mIoU {value:.4f}\n" for name, value in starts.items() if value is not None), end=""
            )
        encodings = ("--encodings", options.out / ENCODINGS_FILE) if options.qat else ("--calibration", "DIR")
        out = unused_folder(f"out/{options.out.resolve().name or 'trained'}")
        print_next(
            "python", "-m", "segformer_edge.quantize", "--weights", result["weights"], *encodings, "--out", out,
            fill="" if options.qat else FILL_DIR,
        )  # fmt: skip
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what would only fail later. Raises UsageError."""
    if options.qat and options.init is None:
        raise UsageError("--qat starts from trained weights.", hint="Name them: --init CHECKPOINT")
    for name in ("quantization", "encodings", "calibration"):
        if getattr(options, name) is not None and not options.qat:
            raise UsageError(f"--{name} is for quantization-aware training.", hint="Add --qat.")
    if options.encodings is not None and (options.quantization or options.calibration):
        raise UsageError("--encodings already says what is quantized and how; leave out --quantization, --calibration.")
    for name in ("steps", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1; got {value}.")
    if options.seed < 0 or options.seed >= 2**63:
        raise UsageError(f"--seed must be 0 to 2**63 - 1; got {options.seed}.")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file.")
    if options.out.is_dir() and any(options.out.iterdir()) and not (options.force or options.resume):
        raise UsageError(f"{options.out} is not empty.", hint="Add --resume to go on, --force to start over.")


if __name__ == "__main__":
    sys.exit(run(main))
