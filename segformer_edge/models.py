"""``segformer-edge models``: NVIDIA's published checkpoints, which ``--weights`` takes by hub id or alias."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segformer_edge.cli import EXIT_OK, FILL_DIR, Parser, print_next, run, unused_folder

if TYPE_CHECKING:
    from segformer_edge.model.published import PublishedModel


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser(
        "segformer-edge models",
        "NVIDIA's published SegFormers, which --weights takes by hub id or alias. Listing them fetches nothing.",
    )
    parser.add_argument("--json", action="store_true", help="only JSON on stdout, class names and palettes included")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = build_parser().parse_args(argv)

    from rich.box import ASCII2, SIMPLE_HEAD
    from rich.table import Table

    from segformer_edge.model.published import NVIDIA_LICENCE, PUBLISHED
    from segformer_edge.report.table import NOT_MEASURED, ascii_only, console_for

    if options.json:
        print(json.dumps([describe(model) for model in PUBLISHED.values()], indent=2, ensure_ascii=False))
        return EXIT_OK
    console = console_for()
    table = Table(box=ASCII2 if ascii_only(console) else SIMPLE_HEAD)
    for name in ("alias", "hub id", "classes", "input", "mIoU in the paper"):
        table.add_column(name, overflow="fold")
    for model in PUBLISHED.values():
        height, width = model.size
        miou = NOT_MEASURED if model.miou is None else f"{model.miou:.3f} ({model.reference})"
        table.add_row(model.alias, model.hub_id, str(len(model.classes.names)), f"{height}x{width}", miou)
    console.print(table)
    console.print(f"Licence of all: {NVIDIA_LICENCE}")
    alias = next(iter(PUBLISHED.values())).alias
    print_next(
        "segformer-edge", "quantize", "--weights", alias, "--calibration", "DIR",
        "--out", unused_folder(f"out/{alias}"), fill=FILL_DIR,
    )  # fmt: skip
    return EXIT_OK


def describe(model: PublishedModel) -> dict[str, Any]:
    """One model, ready for JSON; ``size`` is height and width in pixels, ``miou`` a fraction or null."""
    from segformer_edge.model.published import NVIDIA_LICENCE

    return {
        "hub_id": model.hub_id,
        "alias": model.alias,
        "variant": model.variant,
        "dataset": model.dataset,
        "size": list(model.size),
        "miou": model.miou,
        "miou_from": f"arXiv 2105.15203, {model.reference}",
        "licence": NVIDIA_LICENCE,
        "class_names": list(model.classes.names),
        "palette": [list(colour) for colour in model.classes.palette],
    }


if __name__ == "__main__":
    sys.exit(run(main))
