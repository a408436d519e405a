"""The timeline as a picture (.svg, .png) or a page (.html): live bytes operator by operator, and who makes the peak."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segformer_edge.errors import MissingBackendError, UsageError
from segformer_edge.jsonfile import write_bytes
from segformer_edge.memory.liveness import live_bytes
from segformer_edge.memory.profiling import FileProfile
from segformer_edge.memory.timeline import short_name
from segformer_edge.suggestions import did_you_mean

MIB = 2**20
#: Lines that a page may want in another colour.
INK = "#1b1f24"
#: Areas from the bottom up: (name in the graph, legend, colour).
_LAYERS = (
    ("caller", "caller's tensors", "#c8d0d8"),
    ("plan", "planned buffers", "#4c78a8"),
    ("arena", "arena", "#4c78a8"),
    ("workspace", "workspace", "#72b7b2"),
)
_SCRATCH = ("kernels' scratch", "#eeca3b")
_ANNOTATED = 4


def check_plot(path: Path) -> None:
    """Raise before minutes of measuring: UsageError for a suffix or folder that will not do, MissingBackendError."""
    if path.suffix.lower() not in _RENDER:
        raise UsageError(f"'{path}' is no plot.", hint=did_you_mean(path.suffix, _RENDER))
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"'{path}' cannot be written: its folder is not there, or it is a folder itself.")
    for module, suffix in (("matplotlib", None), ("jinja2", ".html")):
        if find_spec(module) is None and suffix in (None, path.suffix.lower()):
            raise MissingBackendError(f"{module}, which --plot needs,", "report")


def write_plot(path: Path, profile: FileProfile) -> None:
    """Write ``path`` in the format of its suffix, whole or not at all. Raises as ``check_plot`` does, DiskFullError."""
    check_plot(path)
    write_bytes(path, _RENDER[path.suffix.lower()](profile))


def render_html(profile: FileProfile) -> str:
    """A page of its own with the chart inside and the peak's tensors as a table."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from segformer_edge.memory.table import gap_rows, peak_rows, plan_rows, title

    template = files("segformer_edge.memory").joinpath("timeline.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    svg = _render(profile, "svg").decode()
    return environment.from_string(template).render(
        title=title(profile),
        svg=Markup(svg[svg.index("<svg") :]),
        peak=peak_rows(profile),
        plans=plan_rows(profile),
        gap=gap_rows(profile),
        notes=profile.notes,
    )


def timeline_svg(profile: FileProfile, prefix: str) -> str:
    """The chart as an ``<svg>`` to put into a page: text as text, no background, ids that begin with ``prefix``.

    The page sets the colours of class ``timeline``: its ink is ``INK``. Raises MissingBackendError without matplotlib.
    """
    if find_spec("matplotlib") is None:
        raise MissingBackendError("matplotlib, which the chart needs,", "report")
    from segformer_edge.memory.table import amount

    svg = _render(profile, "svg", inline=True).decode()
    svg = svg[svg.index("<svg") :]
    # Namespaces mean nothing inside HTML, and several charts in one page must not share ids.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    words = f"live bytes operator by operator, at most {amount(profile.reading.live.peak_bytes)}"
    return svg.replace("<svg ", f'<svg class="timeline" role="img" aria-label="{words}" ', 1)


def _render(profile: FileProfile, form: str, inline: bool = False) -> bytes:
    """The chart as a file's bytes; ``inline`` leaves out the title, the background and everything but the drawing."""
    from matplotlib import rc_context

    # Names of files and operators are no formulas, whatever dollars are in them.
    fonts = "none" if inline else "path"
    with rc_context({"svg.hashsalt": "segformer_edge", "svg.fonttype": fonts, "text.parse_math": False}):
        return _drawn(profile, form, inline)


def _drawn(profile: FileProfile, form: str, inline: bool) -> bytes:
    from matplotlib.figure import Figure

    from segformer_edge.memory.table import title

    figure = Figure(figsize=(11, 4.2 if inline else 5.2), layout="constrained", dpi=110)
    axis = figure.add_subplot()
    _areas(axis, profile)
    _lines(axis, profile)
    _annotate(axis, profile)
    if not inline:
        axis.set_title(title(profile), loc="left", fontsize="medium")
    axis.set_xlabel("operator, in the order of execution")
    axis.set_ylabel("live bytes (MiB)")
    axis.set_xlim(0, max(1, len(profile.reading.graph.operators)))
    axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.18)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    content = io.BytesIO()
    about = dict.fromkeys(("Date", "Creator", "Format", "Type") if inline else ("Date",)) if form == "svg" else None
    figure.savefig(content, format=form, metadata=about, transparent=inline)
    return content.getvalue()


def _areas(axis: Any, profile: FileProfile) -> None:
    """Live bytes, stacked by where they lie."""
    graph, blocks = profile.reading.graph, profile.reading.live.blocks
    steps = len(graph.operators)
    layers: list[tuple[str, str, list[float]]] = []
    for area, label, colour in _LAYERS:
        own = [block for block in blocks if block.tensor >= 0 and graph.tensors[block.tensor].area == area]
        layers.append((label, colour, [count / MIB for count in live_bytes(own, steps)]))
    scratch = live_bytes([block for block in blocks if block.tensor < 0], steps)
    layers.append((*_SCRATCH, [count / MIB for count in scratch]))
    layers = [layer for layer in layers if any(layer[2])]
    if layers:
        edges = range(steps + 1)  # an operator is as wide as its number
        axis.stackplot(
            edges,
            *([*values, values[-1]] for _, _, values in layers),
            labels=[label for label, _, _ in layers],
            colors=[colour for _, colour, _ in layers],
            step="post",
            linewidth=0,
        )


def _lines(axis: Any, profile: FileProfile) -> None:
    """What the runtime plans, and what was measured."""
    if profile.planned is not None:
        what = " + ".join(plan.what for plan in profile.reading.plans if plan.in_use and plan.bytes is not None)
        label = f"plan: {what}"
        axis.axhline(profile.planned / MIB, color=INK, linestyle="--", linewidth=1.1, label=label)
    measured = profile.measured
    if measured is not None and measured.run_split is not None:
        count = (measured.run_split.activations + measured.run_split.indirection) / MIB
        axis.axhline(count, color="#b3261e", linestyle="-.", linewidth=1.1, label="measured activations")


def _annotate(axis: Any, profile: FileProfile) -> None:
    """The peak's operator and its largest tensors."""
    graph, live = profile.reading.graph, profile.reading.live
    where = live.peak_operator
    if where is None or not live.peak_bytes:
        return
    lines = [f"{live.peak_bytes / MIB:.2f} MiB at {short_name(graph.operators[where].name, 40)}"]
    for block in live.live_at(where)[:_ANNOTATED]:
        owner = graph.tensors[block.tensor] if block.tensor >= 0 else None
        shape = "x".join(map(str, owner.shape)) if owner else "scratch"
        lines.append(f"{block.bytes / MIB:.2f}  {shape} {owner.dtype if owner else ''}".rstrip())
    right = where > len(graph.operators) / 2
    axis.annotate(
        "\n".join(lines),
        xy=(where + 0.5, live.peak_bytes / MIB),
        xytext=(-24 if right else 24, -8),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
        fontsize="x-small",
        bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#9aa6b2", "alpha": 0.92},
        arrowprops={"arrowstyle": "-", "color": "#5b6672"},
    )


_RENDER: dict[str, Callable[[FileProfile], bytes]] = {
    ".svg": lambda profile: _render(profile, "svg"),
    ".png": lambda profile: _render(profile, "png"),
    ".html": lambda profile: render_html(profile).encode(),
}
