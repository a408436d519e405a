"""The fenced blocks of the documentation, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *sorted(ROOT.glob("docs/**/*.md")),
    *(ROOT / name for name in ("README.md", "quantization/README.md", "android_demo/README.md")),
    *sorted((ROOT / "segformer_edge").glob("*/README.md")),
)
#: What a fence may say: "" is shell, as everywhere here; the others are not commands.
LANGUAGES = {"": "shell", "python": "python", **dict.fromkeys(("text", "ini", "csv", "toml", "json"), "other")}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block. Raises ValueError for a language that nobody checks."""

    where: str
    language: str
    text: str

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(f"{self.where}: a block of '{self.language}' is neither run nor known to be no command")

    @property
    def kind(self) -> str:
        """ "shell", "python" or "other"."""
        return LANGUAGES[self.language]

    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block; comments, redirections and variables are dealt with."""
        variables: dict[str, str] = {}
        found = []
        for line in self.text.replace("\\\n", " ").splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            words = shlex.split(line, comments=True)
            if len(words) == 1 and (assigned := re.fullmatch(r"([A-Z]+)=(.*)", words[0])):
                variables[assigned[1]] = assigned[2]
            elif words:
                found += _split(words)
        return found


def _split(words: list[str]) -> list[list[str]]:
    """Commands joined by ``&&``, each up to where its output goes."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            commands.append([])
        else:
            commands[-1].append(word)
    return [command[: command.index(">")] if ">" in command else command for command in commands]


def blocks_of(document: Path) -> list[Block]:
    """All fenced blocks of ``document``, in order."""
    text = document.read_text(encoding="utf-8")
    name = document.relative_to(ROOT)
    return [
        Block(f"{name}:{text.count(chr(10), 0, match.start()) + 1}", match[1], match[2])
        for match in _FENCE.finditer(text)
    ]


def command_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Command and arguments where ``words`` call one of ours, by either way to call it; else None."""
    if words[0] == "segformer-edge":
        return words[1], words[2:]
    if words[0].endswith("python") and words[1] == "-m" and words[2].startswith("segformer_edge."):
        return words[2].removeprefix("segformer_edge."), words[3:]
    return None
