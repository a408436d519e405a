"""The terminal's table as a picture, for documents: the same text in the same colours."""

from __future__ import annotations

import io
import re

from rich.console import Console

from segformer_edge.report.schema import Report
from segformer_edge.report.table import print_on

#: Rich's picture would fetch its font from the network; any monospaced one will do.
_FETCHED = re.compile(r"<!--.*?-->\s*|@font-face \{.*?\}\s*", re.DOTALL)


def terminal_svg(report: Report, command: str, width: int = 136) -> str:
    """What ``print_report`` shows on a terminal of ``width`` columns, under the ``command`` that was typed."""
    console = Console(
        file=io.StringIO(), record=True, width=width, force_terminal=True, color_system="truecolor", highlight=False,
        legacy_windows=False, _environ={},
    )  # fmt: skip
    console.print(f"$ {command}", style="bold", markup=False)
    print_on(console, report)
    return _FETCHED.sub("", console.export_svg(title="segformer-edge", unique_id="report"))
