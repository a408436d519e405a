"""Pages of docs/ that a benchmark fills: the marked block is replaced, the text around it stays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from segformer_edge.errors import UsageError
from segformer_edge.jsonfile import write_bytes


def marks(name: str) -> tuple[str, str]:
    """What stands before and after the block ``name``."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def replace_block(text: str, name: str, block: str, where: str = "the text") -> str:
    """``text`` with ``block`` between the two marks. Raises UsageError where there is not just one pair of them."""
    begin, end = marks(name)
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if text.count(begin) != 1 or text.count(end) != 1 or not pattern.search(text):
        raise UsageError(f"{where} has no block to replace.", hint=f"It stands between {begin} and {end}, each once.")
    return pattern.sub(lambda _: f"{begin}\n{block.strip()}\n{end}", text)


def update(path: Path, name: str, block: str) -> None:
    """Replace the block ``name`` of the file ``path``; a missing file is started with the block alone."""
    text = path.read_text(encoding="utf-8") if path.exists() else "{}\n{}\n".format(*marks(name))
    write_bytes(path, replace_block(text, name, block, str(path)).encode())


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, its first column to the left and numbers to the right."""
    ruler = ["---", *("---:" for _ in header[1:])]
    return ["| " + " | ".join(cells) + " |" for cells in (header, ruler, *rows)]
