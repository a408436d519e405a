"""``sensitivity.png``: harm as horizontal bars, the worst on top."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from segformer_edge.errors import MissingBackendError
from segformer_edge.report.sensitivity import Harm, PartHarm, Sensitivity


def check_plotting() -> None:
    """Raise MissingBackendError without matplotlib: to be asked before minutes of measuring."""
    if find_spec("matplotlib") is None:
        raise MissingBackendError("matplotlib, which the sensitivity plot needs,", "report")


def plot_sensitivity(found: Sensitivity) -> bytes:
    """A PNG: roles above, modules below; a column for the divergence, and one for the loss of mIoU with labels.

    Raises MissingBackendError without matplotlib.
    """
    check_plotting()
    from matplotlib.figure import Figure

    columns: list[tuple[str, Callable[[Harm], float | None]]] = [("KL divergence (nats)", lambda harm: harm.kl)]
    if found.fp32_miou is not None:
        columns.insert(0, ("mIoU drop", lambda harm: harm.miou_drop))
    rows = [("one class of sites", found.roles), ("one module", found.modules)]
    counts = [len(parts) + 1 for _, parts in rows]
    figure = Figure(figsize=(3.5 + 4.5 * len(columns), 1.6 + 0.27 * sum(counts)), layout="constrained", dpi=110)
    height, width = found.size
    figure.suptitle(
        f"SegFormer-{found.model.upper()}, {height}x{width}, recipe {found.recipe}: quantized alone, rest in float"
    )
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex="col", gridspec_kw={"height_ratios": counts})
    for row, (title, parts) in zip(axes, rows, strict=True):
        for i, (axis, (label, read)) in enumerate(zip(row, columns, strict=True)):
            _bars(axis, found, parts, read)
            axis.set_xlabel(label)
            if i == 0:
                axis.set_title(title, loc="left", fontsize="medium")
            else:
                axis.set_yticklabels([])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize="small", frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _bars(axis: Any, found: Sensitivity, parts: tuple[PartHarm, ...], read: Callable[[Harm], float | None]) -> None:
    """One bar a part, the whole's last; a tick and a dot for what the weights and the activations do by themselves."""
    names = [*(part.name for part in parts), "everything"]
    values = [read(harm) or 0.0 for harm in (*(part.alone for part in parts), found.whole)]
    colours = ["#4c78a8"] * len(parts) + ["#9aa6b2"]
    axis.barh(range(len(names)), values, color=colours, label="weights and activations")
    for label, marker, halves in (
        ("weights only", "|", [part.weights_alone for part in parts]),
        ("activations only", ".", [part.activations_alone for part in parts]),
    ):
        points = [(read(harm) or 0.0, y) for y, harm in enumerate(halves) if harm is not None]
        axis.plot(
            *zip(*points, strict=True) if points else ((), ()), marker, color="#d6701c", markersize=9, label=label
        )
    axis.set_yticks(range(len(names)), names, fontsize="small")
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.axvline(0.0, color="#5b6672", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.grid(axis="x", alpha=0.3)
    axis.tick_params(labelbottom=True)
    axis.spines[["top", "right"]].set_visible(False)
