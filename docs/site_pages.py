"""Hooks of mkdocs.yml: pages that lie outside docs/ or are generated, and links that would lead out of the site.

The READMEs stay where readers of the repository look for them, and become pages here. A link to a page is turned to
where that page is; of a link to another file of the repository only the text stays. A page that would fetch anything
from elsewhere fails the build.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from segformer_edge.commands import COMMANDS

ROOT = Path(__file__).parents[1]
#: File of the repository -> page.
READMES = {
    "README.md": "index.md",
    "quantization/README.md": "quantization.md",
    "segformer_edge/training/README.md": "training.md",
    "android_demo/README.md": "android.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
_FETCHED = re.compile(r"<(?:script|img|iframe|source)[^>]+src=\"?(?:https?:)?//|<link[^>]+rel=\"?stylesheet\"?[^>]+//")


def on_files(files: Files, config: Any) -> Files:
    """Add the READMEs and the page of commands."""
    for source, page in READMES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def commands_page() -> str:
    """What each command's ``--help`` says."""
    os.environ["COLUMNS"] = "100"
    parts = ["# Commands", "`segformer-edge COMMAND` and `python -m segformer_edge.COMMAND` are the same.", ""]
    for name, command in COMMANDS.items():
        parts += [f"## {name}", command.about[:1].upper() + command.about[1:] + ".", ""]
        parts += ["```text", command.parser().format_help().rstrip(), "```", ""]
    return "\n".join(parts)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they hold on the site."""
    here = next((source for source, name in READMES.items() if name == page.file.src_uri), f"docs/{page.file.src_uri}")

    def turned(match: re.Match[str]) -> str:
        image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        if not (ROOT / path).exists():
            raise PluginError(f"{here}: the link to '{target}' leads nowhere.")
        name = READMES.get(path) or path.removeprefix("docs/")
        if path not in READMES and (not path.startswith("docs/") or files.get_file_from_path(name) is None):
            return text
        return f"{image}[{text}]({posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return _LINK.sub(turned, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Raise PluginError for a page that a browser would fetch something for from another host."""
    found = _FETCHED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} fetches from elsewhere: {found[0]}")
    return output
