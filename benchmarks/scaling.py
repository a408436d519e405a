"""Time and peak memory against input size, B0 to B2: docs/scaling.json and docs/scaling.svg.

    python benchmarks/scaling.py --out docs

Each point is a ``.tflite`` of recipe ``mixed`` with 19 classes, exported, timed on one thread and measured as this SDK
runs it (LiteRT's CompiledModel with XNNPACK), without a memory budget. Multiply-accumulates are counted by kind: those
of convolutions grow with the number of pixels, those of attention with its square.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from latency import timings
from machine import machine
from random_network import random_network

from segformer_edge.cli import EXIT_OK, Parser, run
from segformer_edge.errors import DataError, UsageError
from segformer_edge.export.tflite import TFLiteExporter
from segformer_edge.jsonfile import Fields, read_json, write_bytes, write_json
from segformer_edge.memory.measure import measure
from segformer_edge.model.config import SegformerConfig, variant_config
from segformer_edge.progress import progress_for_terminal
from segformer_edge.report.sensitivity_plot import check_plotting
from segformer_edge.rewrite.cache_blocks import cache_blocks

SIDES = (128, 192, 256, 384, 512, 768, 1024)
VARIANTS = ("b0", "b1", "b2")
CLASSES = 19
_COLOURS = {"b0": "#4c78a8", "b1": "#d6701c", "b2": "#5a9e58"}


@dataclass(frozen=True)
class Point:
    """One variant at one square input."""

    variant: str
    side: int
    #: Median milliseconds, one thread.
    ms: float
    #: Growth of the process by an inference, without weights.
    peak_bytes: int
    #: Multiply-accumulates of convolutions and linears, and of attention's two products.
    linear_macs: int
    attention_macs: int


def macs_of(config: SegformerConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Multiply-accumulates of the folded network for an input of ``size``: (linear, attention)."""
    linear = attention = 0
    inputs, stride, pixels = 3, 1, prod(size)
    stages = zip(
        config.embed_dims, config.depths, config.reduction_sides, config.mlp_ratios, config.patch_kernels,
        config.patch_strides, strict=True,
    )  # fmt: skip
    quarter = pixels // config.patch_strides[0] ** 2
    for dim, depth, reduction, ratio, kernel, patch in stages:
        stride *= patch
        tokens = pixels // stride**2
        keys = tokens // reduction**2
        linear += tokens * dim * (inputs * kernel**2 + dim)
        reduced = tokens * dim * dim if reduction > 1 else 0
        block = tokens * dim * (2 * dim + 2 * ratio * dim + 9 * ratio) + reduced + 2 * keys * dim * dim
        linear += depth * block + tokens * dim * config.decoder_dim
        attention += depth * 2 * tokens * keys * dim
        inputs = dim
    return linear + quarter * config.decoder_dim * config.num_classes, attention


def point(variant: str, side: int, seconds: float) -> Point:
    """Export, time and measure."""
    network = random_network(variant, CLASSES, "mixed", "logits")
    network.tile(cache_blocks(network.config, (side, side)))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        TFLiteExporter().export(network, (side, side), file)
        (timing,) = timings([file], ["compiled"], seconds=seconds)
        peak = measure(file, variant="compiled").inference_growth
    if peak is None:
        raise DataError(f"Memory at {side} was not measured.", hint="Run where the allocator hook works.")
    return Point(variant, side, timing.median, peak, *macs_of(variant_config(variant, CLASSES), (side, side)))


def load(path: Path) -> tuple[str, list[Point]]:
    """The machine and the points of a file that ``main`` wrote. Raises DataError that names the field."""
    fields = Fields(read_json(path, DataError), f"'{path}'", DataError)
    points = [
        Point(
            row.text("variant", VARIANTS),
            row.integer("side", 32),
            row.number("ms"),
            row.integer("peak_bytes", 1),
            row.integer("linear_macs", 1),
            row.integer("attention_macs", 1),
        )
        for row in fields.sections("rows")
    ]
    return fields.text("machine"), points


def plot(points: Sequence[Point]) -> bytes:
    """An SVG of two panels, time and peak memory over the side, both logarithmic."""
    check_plotting()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Names of elements from a fixed salt and no date: the same figures give the same file.
    with rc_context({"svg.hashsalt": "scaling", "svg.fonttype": "none"}):
        figure = Figure(figsize=(10.0, 4.6), layout="constrained")
        panels = zip(
            figure.subplots(1, 2), ("milliseconds, one thread", "peak of an inference, MiB"),
            (lambda p: p.ms, lambda p: p.peak_bytes / 2**20), strict=True,
        )  # fmt: skip
        sides = sorted({each.side for each in points})
        for axes, title, value in panels:
            for variant in dict.fromkeys(each.variant for each in points):
                own = sorted((each.side, value(each)) for each in points if each.variant == variant)
                xs, ys = [x for x, _ in own], [y for _, y in own]
                axes.plot(xs, ys, marker=".", color=_COLOURS[variant], label=variant.upper())
                # What it would be if everything grew with the number of pixels.
                pixels = [ys[0] * (x / xs[0]) ** 2 for x in xs]
                axes.plot(xs, pixels, linestyle=":", linewidth=1, color=_COLOURS[variant])
            axes.set(xlabel="square input, pixels a side (dotted: in proportion to the pixels)", ylabel=title)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(sides, [str(side) for side in sides])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
            axes.legend(frameon=False)
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every point, print it, write both files."""
    parser = Parser("python benchmarks/scaling.py", "Time and peak memory against input size.")
    parser.add_argument("--sides", default=",".join(map(str, SIDES)), metavar="N,...", help="multiples of 32")
    parser.add_argument("--variants", default=",".join(VARIANTS), metavar="V,...", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for each timing (default 5)")
    parser.add_argument(
        "--out", type=Path, default=Path("docs"), metavar="DIR", help="for scaling.json and scaling.svg"
    )
    options = parser.parse_args(argv)
    variants, sides = options.variants.split(","), options.sides.split(",")
    if unknown := [name for name in variants if name not in VARIANTS]:
        raise UsageError(f"There is no variant '{unknown[0]}' here.", hint=f"Variants: {', '.join(VARIANTS)}.")
    if bad := [side for side in sides if not side.isdigit() or int(side) % 32 or not int(side)]:
        raise UsageError(f"A side is a multiple of 32; got '{bad[0]}'.")
    torch.set_num_threads(1)
    points = []
    with progress_for_terminal() as tell:
        for variant in variants:
            for side in map(int, sides):
                tell.step(f"{variant.upper()} at {side}x{side}")
                points.append(point(variant, side, options.seconds))
                share = points[-1].attention_macs / (points[-1].linear_macs + points[-1].attention_macs)
                print(
                    f"{variant} {side:5} {points[-1].ms:9.1f} ms {points[-1].peak_bytes / 2**20:8.2f} MiB "
                    f"attention {share:6.1%} of the multiply-accumulates", flush=True,
                )  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [asdict(each) for each in points]
    write_json(options.out / "scaling.json", {"schema_version": 1, "machine": machine(), "rows": rows})
    write_bytes(options.out / "scaling.svg", plot(points))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run(main))
