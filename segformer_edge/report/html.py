"""``report.html``: the report as one file that opens anywhere, with nothing to fetch."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from segformer_edge import __version__
from segformer_edge.errors import MissingBackendError
from segformer_edge.jsonfile import write_bytes
from segformer_edge.report.budget import kib
from segformer_edge.report.classes import class_columns, class_rows
from segformer_edge.report.figures import ORIGINS, figures_of
from segformer_edge.report.gates import checks_of
from segformer_edge.report.schema import WIDTHS, Report
from segformer_edge.report.table import COLUMNS, NOT_MEASURED, target_row

if TYPE_CHECKING:
    from segformer_edge.report.examples import Example

#: First bytes of a picture -> its type.
_PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def render_html(
    report: Report,
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
    sensitivity_png: bytes | None = None,
    timelines: Mapping[str, str | None] | None = None,
) -> str:
    """The page as text.

    ``notes`` are paragraphs such as the weights' licence, ``sensitivity_png`` is a plot, ``timelines`` are charts of
    memory as ``<svg>`` by target. Raises MissingBackendError without Jinja2, ValueError for a picture that is neither
    PNG nor JPEG.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise MissingBackendError("Jinja2, which report.html needs,", "report") from error
    page = files("segformer_edge.report").joinpath("page")
    style, script = (page.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=PackageLoader("segformer_edge.report", "page"),
    )  # fmt: skip
    environment.filters["kib"] = kib
    environment.filters["picture"] = _data_uri
    context: dict[str, Any] = {
        "report": report,
        "columns": [name for name, _ in COLUMNS],
        "rows": [(target, target_row(target)) for target in report.targets],
        "checks": {each.target: checks_of(each, report.gates) if report.gates else () for each in report.targets},
        "figures": {target.target: figures_of(target, report.reference) for target in report.targets},
        "origins": ORIGINS,
        "class_columns": [name for name, _ in class_columns(report)],
        "class_rows": class_rows(report),
        "widths": WIDTHS,
        "sensitivity": sensitivity_png,
        "timelines": {target: svg for target, svg in (timelines or {}).items() if svg is not None},
        "examples": examples,
        "scale": _scale() if examples else None,
        "notes": notes,
        "version": __version__,
        "unknown": NOT_MEASURED,
        "style": style,
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    }
    return environment.get_template("report.html.j2").render(context)


def write_html(
    path: str | os.PathLike[str],
    report: Report,
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
    sensitivity_png: bytes | None = None,
    timelines: Mapping[str, str | None] | None = None,
) -> None:
    """Render and write ``path`` atomically. Raises as ``render_html`` does, DiskFullError."""
    write_bytes(path, render_html(report, examples, notes, sensitivity_png, timelines).encode())


def _scale() -> dict[str, Any]:
    """The heat maps' legend: its picture, its marks as (percent from the left, distance), the colour on top."""
    from segformer_edge.report.difference import CHANGED, TICKS, legend, scale_position
    from segformer_edge.runtime.pictures import png

    marks = [(float(scale_position(tick)) * 100, f"{tick:g}") for tick in TICKS]
    return {"picture": png(legend()), "marks": marks, "changed": f"rgb{CHANGED}"}


def _data_uri(content: bytes) -> str:
    kind = next((kind for head, kind in _PICTURES.items() if content.startswith(head)), None)
    if kind is None:
        raise ValueError("A picture is neither PNG nor JPEG.")
    return f"data:{kind};base64," + base64.b64encode(content).decode("ascii")
