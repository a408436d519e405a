"""``python -m segformer_edge.quantize`` and ``segformer_edge.quantize(...)``: a SegFormer in, INT8 files out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segformer_edge.callable_module import make_callable
from segformer_edge.cli import FILL_DATASET, Parser, print_next, run
from segformer_edge.data.specs import dataset_specs
from segformer_edge.errors import UsageError
from segformer_edge.options import Size, bytes_of, names_of, size_of

if TYPE_CHECKING:
    from segformer_edge.progress import Progress
    from segformer_edge.report.schema import Report

VARIANT_CHOICES = ("b0", "b1", "b2", "b3", "b4", "b5")
OUTPUT_CHOICES = ("logits", "labels")


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser(
        "python -m segformer_edge.quantize",
        "Turn a trained SegFormer into INT8 files for ExecuTorch, LiteRT, OpenVINO and ONNX; run and check each one. "
        "Without options it uses the bundled demo checkpoint and demo scenes.",
    )
    parser.add_argument("--model", choices=VARIANT_CHOICES, help="what the weights must be (default: what they are)")
    parser.add_argument("--weights", default="demo", metavar="W", help="demo, a folder, a file or a hub id")
    parser.add_argument("--reference", metavar="W", help="float weights to compare with (default: the weights)")
    parser.add_argument("--size", metavar="HxW", help="network input, like 512 or 384x512 (default: the weights' own)")
    parser.add_argument("--output", choices=OUTPUT_CHOICES, default="logits", help="what the files give")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="images to calibrate on")
    parser.add_argument("--eval", metavar="DATASET", help=", ".join(dataset_specs()))
    parser.add_argument("--targets", metavar="LIST", help="comma-separated (default: executorch,tflite,openvino,onnx)")
    parser.add_argument("--recipe", metavar="NAME_OR_FILE", help="precision recipe (default: each target's own)")
    parser.add_argument("--encodings", type=Path, metavar="FILE", help="quantization parameters instead of calibration")
    parser.add_argument("--sensitivity", action="store_true", help="also find which parts lose most (some minutes)")
    parser.add_argument(
        "--max-drop", type=float, default=1.0, metavar="POINTS", help="largest loss of mIoU (1.0 is 0.01)"
    )
    parser.add_argument(
        "--memory-budget", metavar="BYTES", help="tile exactly until an inference fits, like 2M or 384K; exit 3 if not"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="output folder (default: out)")
    parser.add_argument("--android", type=Path, metavar="DIR", help="also put the .pte into this Android app's assets")
    parser.add_argument("--no-profile", action="store_true", help="no operator times or memory timelines in the report")
    parser.add_argument("--force", action="store_true", help="replace the files of an earlier run")
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    return parser


def quantize(
    *,
    model: str | None = None,
    weights: str | os.PathLike[str] = "demo",
    reference: str | os.PathLike[str] | None = None,
    size: Size | None = None,
    output: Literal["logits", "labels"] = "logits",
    calibration: str | os.PathLike[str] | None = None,
    eval: str | None = None,
    targets: Sequence[str] | str | None = None,
    recipe: str | os.PathLike[str] | None = None,
    encodings: str | os.PathLike[str] | None = None,
    sensitivity: bool = False,
    max_drop: float = 1.0,
    memory_budget: int | str | None = None,
    out: str | os.PathLike[str] = "out",
    android: str | os.PathLike[str] | None = None,
    force: bool = False,
    profile: bool = True,
    command: Sequence[str] | None = None,
    tell: Progress | None = None,
) -> Report:
    """Turn a trained SegFormer into INT8 files in the folder ``out``, run each one, and say what it costs.

    The options are those of ``python -m segformer_edge.quantize``, described in its help. ``size`` is a side or
    (height, width), multiples of 32; ``targets`` are names like "tflite"; ``memory_budget`` is in bytes, or a text like
    "2M"; ``max_drop`` is in points of mIoU (1.0 is 0.01). ``tell`` hears of the progress; without it only warnings are
    told. ``profile`` puts operator times and memory timelines into the report, ``command`` the words that it was called
    by in place of the options.

    Returns what ``report.json`` holds. A target that fails, misses the budget or loses too much is an entry with that
    ``status`` there, not an exception. Raises UsageError, CheckpointError, DataError or MissingBackendError for what
    was asked wrongly, and DiskFullError; ``out`` is then what it was.
    """
    pair, budget = size_of(size), bytes_of(memory_budget)
    if not max_drop >= 0.0:
        raise UsageError(f"--max-drop is a number of mIoU points, 0 or more; got {max_drop}.")
    if output not in OUTPUT_CHOICES:
        raise UsageError(f"--output is one of {', '.join(OUTPUT_CHOICES)}; got '{output}'.")
    from segformer_edge.data.datasets import open_dataset
    from segformer_edge.export.android import AndroidProject, install_result
    from segformer_edge.export.targets import CPU_TARGETS, choose_targets

    names = names_of(targets)
    chosen = choose_targets(CPU_TARGETS if names is None else names)
    app = AndroidProject.open(android) if android is not None else None
    if app is not None:
        app.check_targets(chosen)
    spec = _dataset(eval, weights)
    dataset = open_dataset(spec) if spec else None

    from segformer_edge import pipeline
    from segformer_edge.sensitivity_analysis import IMAGES

    report = pipeline.quantize(
        pipeline.QuantizeOptions(
            out=Path(out),
            weights=os.fspath(weights),
            variant=model,
            reference=os.fspath(reference) if reference is not None else None,
            size=pair,
            output=output,
            calibration=Path(calibration) if calibration is not None else None,
            dataset=dataset,
            targets=chosen,
            recipe=os.fspath(recipe) if recipe is not None else None,
            encodings=Path(encodings) if encodings is not None else None,
            max_drop=max_drop,
            memory_budget=budget,
            force=force,
            sensitivity=IMAGES if sensitivity else None,
            profile=profile,
            command=command,
        ),
        tell,
    )
    if app is not None:
        install_result(app, report, Path(out))
    return report


def _dataset(eval: str | None, weights: str | os.PathLike[str]) -> str | None:
    """The data set that files are scored on: the demo's own where none is named for it."""
    return eval or ("demo" if os.fspath(weights) == "demo" else None)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    command = sys.argv[1:] if argv is None else list(argv)
    options = build_parser().parse_args(command)

    from segformer_edge.progress import progress_for_terminal

    with progress_for_terminal() as tell:
        report = quantize(
            model=options.model,
            weights=options.weights,
            reference=options.reference,
            size=options.size,
            output=options.output,
            calibration=options.calibration,
            eval=options.eval,
            targets=options.targets,
            recipe=options.recipe,
            encodings=options.encodings,
            sensitivity=options.sensitivity,
            max_drop=options.max_drop,
            memory_budget=options.memory_budget,
            out=options.out,
            android=options.android,
            force=options.force,
            profile=not options.no_profile,
            command=command,
            tell=tell,
        )

    from segformer_edge.pipeline import exit_code

    if options.json:
        print(json.dumps(report.to_json(), indent=2, allow_nan=False))
    else:
        _print(report, options.out, _dataset(options.eval, options.weights), options.android)
    return exit_code(report.targets)


def _print(report: Report, out: Path, spec: str | None, android: Path | None) -> None:
    from segformer_edge.export.android import AndroidProject, carried
    from segformer_edge.report.table import print_report

    print_report(report)
    done = [target for target in report.targets if target.files]
    if done:
        file = done[0].npu.host_file if done[0].npu else done[0].files[0]
        print_next(
            "python", "-m", "segformer_edge.evaluate", out / str(file), "--data", spec or "DATASET",
            fill="" if spec else FILL_DATASET,
        )  # fmt: skip
    if android is not None and carried(report).status == "ok":
        print(f"the Android app carries it: {AndroidProject(android).assets / carried(report).files[0]}")


if __name__ == "__main__":
    sys.exit(run(main))
make_callable(__name__, quantize)
