"""``python -m segformer_edge.quantize``: a trained SegFormer in, verified INT8 files and a report out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from segformer_edge.cli import Parser, parse_bytes, parse_size, run
from segformer_edge.errors import UsageError

VARIANT_CHOICES = ("b0", "b1", "b2", "b3", "b4", "b5")


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
    parser.add_argument("--output", choices=("logits", "labels"), default="logits", help="what the files give")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="images to calibrate on")
    parser.add_argument(
        "--eval", metavar="DATASET", help="demo, camvid:DIR:val, ade20k:DIR, cityscapes:DIR, folder:DIR"
    )
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


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    command = sys.argv[1:] if argv is None else list(argv)
    options = build_parser().parse_args(command)
    size = parse_size(options.size) if options.size else None
    budget = parse_bytes(options.memory_budget) if options.memory_budget is not None else None
    if not options.max_drop >= 0.0:
        raise UsageError(f"--max-drop is a number of mIoU points, 0 or more; got {options.max_drop}.")

    from segformer_edge.data.datasets import open_dataset
    from segformer_edge.export.android import AndroidProject, install_result
    from segformer_edge.export.targets import CPU_TARGETS, choose_targets

    names = [name.strip() for name in options.targets.split(",")] if options.targets is not None else CPU_TARGETS
    targets = choose_targets([name for name in names if name])
    app = AndroidProject.open(options.android) if options.android is not None else None
    if app is not None:
        app.check_targets(targets)
    spec = options.eval or ("demo" if options.weights == "demo" else None)
    dataset = open_dataset(spec) if spec else None

    from segformer_edge.pipeline import QuantizeOptions, exit_code, quantize
    from segformer_edge.progress import progress_for_terminal
    from segformer_edge.report.table import print_report
    from segformer_edge.sensitivity_analysis import IMAGES

    with progress_for_terminal() as tell:
        report = quantize(
            QuantizeOptions(
                out=options.out,
                weights=options.weights,
                variant=options.model,
                reference=options.reference,
                size=size,
                output=options.output,
                calibration=options.calibration,
                dataset=dataset,
                targets=targets,
                recipe=options.recipe,
                encodings=options.encodings,
                max_drop=options.max_drop,
                memory_budget=budget,
                force=options.force,
                sensitivity=IMAGES if options.sensitivity else None,
                profile=not options.no_profile,
                command=command,
            ),
            tell,
        )
    installed = install_result(app, report, options.out) if app is not None else None
    if options.json:
        print(json.dumps(report.to_json(), indent=2, allow_nan=False))
    else:
        print_report(report)
        done = [target for target in report.targets if target.files]
        if done:
            file = done[0].npu.host_file if done[0].npu else done[0].files[0]
            print(f"next: python -m segformer_edge.evaluate {options.out / file} --data {spec or 'DATASET'}")
        if installed is not None:
            print(f"the Android app carries it: {installed}")
    return exit_code(report.targets)


if __name__ == "__main__":
    sys.exit(run(main))
