"""``report.html``: the report as one file that opens anywhere, with nothing to fetch."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from segformer_edge import __version__
from segformer_edge.errors import MissingBackendError
from segformer_edge.jsonfile import write_bytes
from segformer_edge.report.classes import class_columns, class_rows
from segformer_edge.report.schema import WIDTHS, Report
from segformer_edge.report.table import COLUMNS, NOT_MEASURED, mib, target_row

_PNG_HEAD = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Example:
    """One image as the report shows it: (caption, PNG bytes) from left to right, such as input, float32, INT8."""

    name: str
    pictures: tuple[tuple[str, bytes], ...]


def render_html(
    report: Report, examples: Sequence[Example] = (), notes: Sequence[str] = (), sensitivity_png: bytes | None = None
) -> str:
    """The page as text. ``notes`` are paragraphs such as the weights' licence; ``sensitivity_png`` is a plot.

    Raises MissingBackendError without Jinja2, ValueError for a picture that is no PNG.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError as error:
        raise MissingBackendError("Jinja2, which report.html needs,", "report") from error
    template = files("segformer_edge.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["mib"] = mib
    environment.filters["shown"] = lambda value: NOT_MEASURED if value is None else value
    context: dict[str, Any] = {
        "report": report,
        "columns": [name for name, _ in COLUMNS],
        "rows": [(target, target_row(target)) for target in report.targets],
        "class_columns": [name for name, _ in class_columns(report)],
        "class_rows": class_rows(report),
        "widths": WIDTHS,
        "sensitivity": None if sensitivity_png is None else _data_uri(sensitivity_png),
        "examples": [(example.name, [(c, _data_uri(p)) for c, p in example.pictures]) for example in examples],
        "notes": notes,
        "version": __version__,
    }
    return environment.from_string(template).render(context)


def write_html(
    path: str | os.PathLike[str],
    report: Report,
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
    sensitivity_png: bytes | None = None,
) -> None:
    """Render and write ``path`` atomically. Raises MissingBackendError, DiskFullError."""
    write_bytes(path, render_html(report, examples, notes, sensitivity_png).encode())


def _data_uri(png: bytes) -> str:
    if not png.startswith(_PNG_HEAD):
        raise ValueError("A picture is not a PNG file.")
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
