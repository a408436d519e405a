"""Peak activation memory against input size: docs/memory_size.svg from docs/memory_size.json.

    python benchmarks/memory_size.py docs/memory_size.json --out docs/memory_size.svg

A row of the JSON is one square input: ``{"figure": "...", "rows": [{"variant": "b0", "side": 512, "budget": null,
"bytes": 9}]}``. ``budget`` is in bytes, null for none, 0 for the least that any plan reaches; ``bytes`` is null where
no plan fits, and ``figure`` says what they are.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segformer_edge.cli import EXIT_OK, Parser, run
from segformer_edge.errors import DataError
from segformer_edge.jsonfile import Fields, read_json, write_bytes, write_json
from segformer_edge.model.config import variant_config
from segformer_edge.report.sensitivity_plot import check_plotting

SIDES = (96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
VARIANTS = ("b0", "b1")
#: None: no budget. 0: the least that any plan reaches.
BUDGETS = (None, 8 * 1024 * 1024, 0)
#: Stage i works at 1/STRIDES[i] of the input's sides.
STRIDES = (4, 8, 16, 32)
_COLOURS = {"b0": "#4c78a8", "b1": "#d6701c"}
_STYLES = ("-", "--", "-.", (0, (1, 1)))


@dataclass(frozen=True)
class Peak:
    """Peak bytes of one variant at one square input under one budget; None where no plan fits."""

    variant: str
    side: int
    budget: int | None
    bytes: int | None


def lower_bound(variant: str, side: int, image: bool = False) -> int:
    """Bytes that are alive at once under any tiling of an int8 network: the feature maps of the stages behind, which
    wait for the decode head, and the residual stream of the stage at work, which becomes its feature map.

    With ``image`` also the whole input, 3 bytes a pixel, while the first patch embedding reads it.
    """
    channels = variant_config(variant, 2).embed_dims
    maps = [width * (side // stride) ** 2 for width, stride in zip(channels, STRIDES, strict=True)]
    # Each map is the stream of its own stage, so the sum over all stages is the largest.
    return max(sum(maps), maps[0] + 3 * side * side if image else 0)


def collect(
    peak: Callable[[int, str, int | None], int | None],
    sides: Iterable[int] = SIDES,
    variants: Sequence[str] = VARIANTS,
    budgets: Sequence[int | None] = BUDGETS,
) -> list[Peak]:
    """Ask ``peak(side, variant, budget)`` for every combination."""
    return [
        Peak(variant, side, budget, peak(side, variant, budget))
        for variant in variants
        for budget in budgets
        for side in sides
    ]


def save(path: Path, figure: str, peaks: Sequence[Peak]) -> None:
    """Write the JSON file that the plot is made of."""
    write_json(path, {"figure": figure, "rows": [asdict(peak) for peak in peaks]})


def load(path: Path) -> tuple[str, list[Peak]]:
    """What ``save`` wrote. Raises DataError that names the field."""
    fields = Fields(read_json(path, DataError), f"'{path}'", DataError)
    peaks = []
    for row in fields.sections("rows"):
        budget = None if row.raw("budget") is None else row.integer("budget", 0)
        taken = None if row.raw("bytes") is None else row.integer("bytes", 0)
        peaks.append(Peak(row.text("variant", VARIANTS), row.integer("side", 32), budget, taken))
    return fields.text("figure"), peaks


def label(variant: str, budget: int | None) -> str:
    """A line's name in the legend."""
    if budget is None:
        return f"{variant.upper()}, no budget"
    return f"{variant.upper()}, {f'budget {budget / 1024 / 1024:g} MiB' if budget else 'least of all plans'}"


def plot(figure_title: str, peaks: Sequence[Peak]) -> bytes:
    """An SVG: one line a variant and budget, and each variant's physical lower bound. Both axes are logarithmic."""
    check_plotting()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Names of elements from a fixed salt and no date: the same figures give the same file.
    with rc_context({"svg.hashsalt": "memory_size", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8.0, 5.2), layout="constrained")
        axes = figure.subplots()
        sides = sorted({peak.side for peak in peaks})
        budgets = list(dict.fromkeys(peak.budget for peak in peaks))
        for variant in dict.fromkeys(peak.variant for peak in peaks):
            for budget, style in zip(budgets, _STYLES, strict=False):
                points = [(p.side, p.bytes) for p in peaks if (p.variant, p.budget) == (variant, budget) and p.bytes]
                if points:
                    style_of_line = {"linestyle": style, "marker": ".", "color": _COLOURS[variant]}
                    axes.plot(*zip(*sorted(points), strict=True), label=label(variant, budget), **style_of_line)
            _draw_bounds(axes, variant, sides)
        axes.set(xlabel="square input, pixels a side", ylabel=figure_title)
        axes.set_xscale("log")
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: _bytes_text(value))
        axes.set_xticks(sides, [str(side) for side in sides], fontsize="small", rotation=45)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", frameon=False)
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def _bytes_text(value: float) -> str:
    return f"{value / 1024:g} KiB" if value < 1024 * 1024 else f"{value / 1024 / 1024:g} MiB"


def _draw_bounds(axes: Any, variant: str, sides: Sequence[int]) -> None:
    bound = [lower_bound(variant, side) for side in sides]
    with_image = [lower_bound(variant, side, image=True) for side in sides]
    name = f"{variant.upper()}, lower bound: residual stream + feature maps"
    axes.plot(sides, bound, color=_COLOURS[variant], linewidth=4, alpha=0.35, label=name)
    if with_image != bound:
        axes.plot(sides, with_image, color=_COLOURS[variant], linewidth=1, alpha=0.6, linestyle=":",
                  label=f"{variant.upper()}, the same with the input image")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the file."""
    parser = Parser("python benchmarks/memory_size.py", "Peak memory against input size, as a plot.")
    parser.add_argument("data", type=Path, metavar="JSON", help="the figures")
    parser.add_argument("--out", type=Path, default=Path("docs/memory_size.svg"), metavar="SVG", help="what to write")
    options = parser.parse_args(argv)
    title, peaks = load(options.data)
    if not peaks:
        raise DataError(f"'{options.data}' holds no rows.")
    write_bytes(options.out, plot(title, peaks))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run(main))
