"""``python -m segformer_edge.erf``: the effective receptive field of each stage and of the head, float beside INT8."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segformer_edge.cli import EXIT_OK, Parser, parse_size, print_next, run, unused_folder
from segformer_edge.errors import MissingBackendError, UsageError

if TYPE_CHECKING:
    from segformer_edge.receptive_field import Precisions

#: One image in both precisions takes one core some 2 s with B0 at 256x256.
IMAGES = 16


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser(
        "python -m segformer_edge.erf",
        "Show which pixels the middle of each stage's feature map and of the logits depends on, in float and in INT8. "
        "Without options it uses the bundled demo checkpoint and demo scenes.",
    )
    parser.add_argument("--weights", default="demo", metavar="W", help="demo, a folder, a file or a hub id")
    parser.add_argument("--size", metavar="HxW", help="network input, like 256 or 384x512 (default: the weights' own)")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="images to calibrate on and to average over")
    parser.add_argument(
        "--images", type=int, default=IMAGES, metavar="N", help="how many images to average over (default: %(default)s)"
    )
    parser.add_argument("--recipe", metavar="NAME_OR_FILE", help="what is INT8, and how (default: mixed)")
    parser.add_argument("--encodings", type=Path, metavar="FILE", help="quantization parameters instead of calibration")
    parser.add_argument(
        "--out", type=Path, default=Path("erf.png"), metavar="FILE", help=".png, .svg or .pdf (default: erf.png)"
    )
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    options = build_parser().parse_args(argv)
    size = parse_size(options.size) if options.size else None
    if options.images < 1:
        raise UsageError(f"--images is at least 1; got {options.images}.")
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingBackendError("torch, which the gradients need,", "model,report") from error

    from segformer_edge.export.targets import CPU_TARGETS, TARGETS
    from segformer_edge.prepare import QuantizeOptions, prepare, recipe_for
    from segformer_edge.progress import progress_for_terminal
    from segformer_edge.receptive_field import Precisions, compare_precisions
    from segformer_edge.report.receptive_field_plot import check_picture, write_picture

    check_picture(options.out)
    asked = QuantizeOptions(
        out=options.out.parent,
        weights=options.weights,
        size=size,
        calibration=options.calibration,
        recipe=options.recipe,
        encodings=options.encodings,
    )
    recipe = recipe_for(asked, [TARGETS[name] for name in CPU_TARGETS])
    with progress_for_terminal() as tell:
        prepared = prepare(asked, recipe, tell)
        chosen = prepared.some_images(options.images)
        if len(chosen) < options.images:
            tell.warn(f"averaged over {len(chosen)} images; there are no more (asked for: {options.images})")
        images = [torch.from_numpy(prepared.preprocessing(image)) for image in chosen]
        found = Precisions(
            model=prepared.loaded.variant or "custom",
            weights=options.weights,
            size=prepared.size,
            recipe=prepared.recipe,
            images=len(images),
            fields=compare_precisions(prepared.network, images, tell),
        )
    write_picture(options.out, found)
    if options.json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        _print(found)
        print(f"plot: {options.out}")
        print_next(*_next(options))
    return EXIT_OK


def _next(options: argparse.Namespace) -> list[object]:
    """The command that says which parts lose accuracy, on the same images."""
    given = {"--size": options.size, "--calibration": options.calibration, "--recipe": options.recipe,
             "--encodings": options.encodings}  # fmt: skip
    same = [word for name, value in given.items() if value is not None for word in (name, value)]
    out = unused_folder("out/sensitivity")
    return ["python", "-m", "segformer_edge.sensitivity", "--weights", options.weights, *same, "--out", out]


def _print(found: Precisions) -> None:
    """The sides of the squares, one row an output."""
    from rich.box import ASCII2, SIMPLE_HEAD
    from rich.table import Table

    from segformer_edge.receptive_field import SHARES
    from segformer_edge.report.table import NOT_MEASURED, ascii_only, console_for

    console = console_for()
    height, width = found.size
    console.print(
        f"SegFormer-{found.model.upper()}, {height}x{width}, {found.images} images, INT8 recipe {found.recipe}: "
        f"side in pixels of the square that holds {', '.join(f'{share:.0%}' for share in SHARES)} of the gradient",
        style="bold",
    )
    table = Table(box=ASCII2 if ascii_only(console) else SIMPLE_HEAD, pad_edge=False)
    for name in ("output", "stride", *found.fields, "overlap"):
        table.add_column(name, justify="left" if name == "output" else "right", no_wrap=True)
    for row in found.to_json()["outputs"]:
        sides = [" / ".join(str(side) for side in row[precision].values()) for precision in found.fields]
        overlap = NOT_MEASURED if row["overlap"] is None else f"{row['overlap']:.3f}"
        table.add_row(row["name"], str(row["stride"]), *sides, overlap)
    console.print(table)


if __name__ == "__main__":
    sys.exit(run(main))
