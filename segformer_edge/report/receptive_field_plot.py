"""``erf.png``: the receptive fields of the stages and the head as maps, and how much of each a square holds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from segformer_edge.errors import UsageError
from segformer_edge.jsonfile import write_bytes
from segformer_edge.receptive_field import Precisions, ReceptiveField
from segformer_edge.report.sensitivity_plot import check_plotting

FORMATS = (".png", ".svg", ".pdf")
#: The square drawn into each map.
_BOXED = 0.9
#: The darkest value shown, as a share of a map's largest.
_FLOOR = 1e-3
_COLOURS = {"float": "#4c78a8", "int8": "#d6701c"}
_TITLES = {"float": "float32", "int8": "INT8"}


def check_picture(path: Path) -> None:
    """Raise before a minute of computing: UsageError for a suffix or folder that will not do, MissingBackendError."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"'{path}' is no picture that can be written.", hint=f"Choose one of: {', '.join(FORMATS)}.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"'{path}' cannot be written: its folder is not there, or it is a folder itself.")
    check_plotting()


def write_picture(path: Path, found: Precisions) -> None:
    """Write ``path`` in the format of its suffix, whole or not at all. Raises as ``check_picture`` does, DiskFullError.

    One column an output, one row a precision; below, the share of the gradient against the side of a centred square.
    """
    check_picture(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names, form = list(found.fields["float"]), path.suffix.lower()[1:]
    rows = len(found.fields)
    height, width = found.size
    shape = min(max(height / width, 0.5), 2.0)
    figure = Figure(figsize=(2.3 * len(names), 2.3 * shape * rows + 2.5), layout="constrained", dpi=110)
    figure.suptitle(
        f"SegFormer-{found.model.upper()}, {height}x{width}, {found.images} images, INT8 recipe {found.recipe}: "
        f"effective receptive field of the middle position"
    )
    ratios = [shape] * rows + [0.7]
    axes = figure.subplots(rows + 1, len(names), squeeze=False, gridspec_kw={"height_ratios": ratios})
    for row, (precision, fields) in zip(axes, found.fields.items(), strict=False):
        for axis, name in zip(row, names, strict=True):
            image = _map(axis, fields[name])
            axis.set_title(f"{name}: {fields[name].side(_BOXED)} px", fontsize="medium")
        row[0].set_ylabel(_TITLES[precision])
    figure.colorbar(image, ax=axes[:rows, :], label="gradient / largest", shrink=0.8, pad=0.01)
    for axis, name in zip(axes[-1], names, strict=True):
        _curves(axis, found, name)
    axes[-1][0].set_ylabel("share inside")
    handles, labels = axes[-1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize="small", frameon=False)
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "segformer_edge"}):
        figure.savefig(content, format=form, metadata=dates[form])
    write_bytes(path, content.getvalue())


def _map(axis: Any, field: ReceptiveField) -> Any:
    """The gradient on a logarithmic scale, and the square that holds ``_BOXED`` of it."""
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    relative = (field.gradient / field.gradient.max()).clip(_FLOOR, 1.0)
    image = axis.imshow(relative, cmap="viridis", norm=LogNorm(_FLOOR, 1.0), interpolation="nearest")
    side, (row, column) = field.side(_BOXED), field.centre
    corner = (column - side / 2, row - side / 2)
    axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1.2))
    axis.set_xticks([])
    axis.set_yticks([])
    return image


def _curves(axis: Any, found: Precisions, name: str) -> None:
    """Share of the gradient inside the centred square, by its side."""
    for precision, fields in found.fields.items():
        shares = fields[name].shares
        style = "-" if precision == "float" else "--"
        sides = [2 * radius + 1 for radius in range(len(shares))]
        axis.plot(sides, shares, style, color=_COLOURS[precision], label=_TITLES[precision], linewidth=1.4)
    axis.axhline(_BOXED, color="#5b6672", linewidth=0.8, linestyle=":", label=f"{_BOXED:.0%}, the square in the maps")
    axis.set_xlim(1, max(found.size))
    axis.set_ylim(0.0, 1.02)
    axis.set_xlabel("side (pixels)", fontsize="small")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize="small")
