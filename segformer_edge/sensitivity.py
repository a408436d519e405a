"""``python -m segformer_edge.sensitivity``: which classes of sites, and which stages, lose accuracy to quantization."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segformer_edge.cli import Parser, parse_size, run
from segformer_edge.data.specs import dataset_specs
from segformer_edge.errors import MissingBackendError, UsageError
from segformer_edge.verbosity import is_quiet

if TYPE_CHECKING:
    from segformer_edge.report.sensitivity import Suggestion

#: What the command writes into --out.
FILES = ("sensitivity.json", "sensitivity.png")


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser(
        "python -m segformer_edge.sensitivity",
        "Quantize one class of sites, then one stage at a time, with everything else in float, and sort them by harm. "
        "Without options it uses the bundled demo checkpoint and demo scenes.",
    )
    parser.add_argument("--weights", default="demo", metavar="W", help="demo, a folder, a file or a hub id")
    parser.add_argument("--size", metavar="HxW", help="network input, like 256 or 384x512 (default: the weights' own)")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="images to calibrate on")
    parser.add_argument(
        "--eval", metavar="DATASET", help=f"labelled images to compare on: {', '.join(dataset_specs())}"
    )
    parser.add_argument("--images", type=int, metavar="N", help="how many images to compare on (default: 24)")
    parser.add_argument("--recipe", metavar="NAME_OR_FILE", help="what is quantized, and how (default: mixed)")
    parser.add_argument("--encodings", type=Path, metavar="FILE", help="quantization parameters instead of calibration")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/sensitivity"),
        metavar="DIR",
        help="output folder (default: out/sensitivity)",
    )
    parser.add_argument("--force", action="store_true", help="replace the files of an earlier run")
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    options = build_parser().parse_args(argv)
    size = parse_size(options.size) if options.size else None
    if options.images is not None and options.images < 1:
        raise UsageError(f"--images is at least 1; got {options.images}.")
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingBackendError("torch, which calibrating needs,", "model,report") from error

    from segformer_edge.data.datasets import open_dataset
    from segformer_edge.export.outdir import OutputFolder
    from segformer_edge.export.targets import CPU_TARGETS, TARGETS
    from segformer_edge.prepare import QuantizeOptions, prepare, recipe_for
    from segformer_edge.progress import progress_for_terminal
    from segformer_edge.report.sensitivity import print_sensitivity
    from segformer_edge.report.sensitivity_plot import check_plotting
    from segformer_edge.sensitivity_analysis import IMAGES, save_sensitivity, sensitivity_of

    check_plotting()
    spec = options.eval or ("demo" if options.weights == "demo" else None)
    asked = QuantizeOptions(
        out=options.out,
        weights=options.weights,
        size=size,
        calibration=options.calibration,
        dataset=open_dataset(spec) if spec else None,
        recipe=options.recipe,
        encodings=options.encodings,
        sensitivity=IMAGES if options.images is None else options.images,
    )
    recipe = recipe_for(asked, [TARGETS[name] for name in CPU_TARGETS])
    with OutputFolder(options.out, options.force, FILES) as folder, progress_for_terminal() as tell:
        found = sensitivity_of(prepare(asked, recipe, tell), asked, tell)
        save_sensitivity(found, folder.path)
    if options.json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        print_sensitivity(found)
        print(f"plot: {options.out / FILES[1]}")
        if not is_quiet():
            _print_next(found.suggestions(), None if options.encodings else _recipe_file(recipe.name, options.recipe))
    return 0


def _recipe_file(name: str, given: str | None) -> Path:
    """The recipe as a file: the user's own, or the bundled one of that name."""
    from quantization.recipe import RECIPES

    return Path(given) if given and given.endswith(".toml") else RECIPES / f"{name}.toml"


def _print_next(suggestions: Sequence[Suggestion], recipe: Path | None) -> None:
    from segformer_edge.report.sensitivity import recipe_lines

    if not suggestions:
        print("next: nothing in this recipe can be made wider")
        return
    start = f"cp {recipe} my.toml, change there" if recipe else "in a recipe, change"
    print(f"next: {start} what diverges most, and run this again with --recipe my.toml:")
    print(recipe_lines(suggestions))


if __name__ == "__main__":
    sys.exit(run(main))
