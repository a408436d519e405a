"""Compiles C files of ours into shared libraries, each kept in a cache folder under a name made from its source."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from segformer_edge.errors import SegformerEdgeError
from segformer_edge.verbosity import child_output

#: Neither start files nor headers: a library of ours needs only what the program it is loaded into has.
FLAGS = ("-O2", "-fPIC", "-fno-builtin", "-nostdlib", "-shared")
COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True)
class Library:
    """One shared library: what to call it in messages, its C file and what that includes, the error it fails with."""

    title: str
    sources: tuple[Path, ...]
    error: type[SegformerEdgeError]

    def build(self, folder: Path, check: Callable[[Path], None] | None = None) -> Path:
        """The library for programs of this machine, built in ``folder`` unless it is there; ``check`` tries a new one.

        Raises ``error``.
        """
        compiler = self._find_compiler()
        library = self.path(folder, compiler)
        if not library.exists():
            self.run([[*compiler, *FLAGS, "-o", "{library}", str(self.sources[0])]], {}, library)
            if check is not None:
                check(library)
        return library

    def path(self, folder: Path, how: Iterable[str]) -> Path:
        """Its place in ``folder``; another source or another way to compile it (``how``) gives another name."""
        made_of = (*(source.read_bytes() for source in self.sources), "\0".join((*how, *FLAGS)).encode())
        key = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
        return folder / f"{self.sources[0].stem}-{key}.so"

    def run(self, commands: Sequence[Sequence[str]], environment: Mapping[str, str], library: Path) -> None:
        """Run ``commands`` with a scratch name for ``{library}``; what they made appears as ``library`` at once."""
        library.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=library.parent, prefix=f".{library.stem}-") as folder:
            scratch = Path(folder) / library.name
            for command in commands:
                words = [word.replace("{library}", str(scratch)) for word in command]
                try:
                    done = subprocess.run(
                        words, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=dict(environment) or None
                    )
                except OSError as error:
                    raise self.error(f"{self.title} was not built: {words[0]}: {error.strerror}.") from error
                child_output(words[0], done.stderr)
                if done.returncode:
                    last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
                    raise self.error(f"{self.title} was not built: {last}", hint="Name another compiler: CC=gcc")
            scratch.replace(library)

    def _find_compiler(self) -> list[str]:
        """$CC, which may hold options, else the first of COMPILERS that is installed."""
        chosen = shlex.split(os.environ.get("CC", ""))
        if chosen and shutil.which(chosen[0]):
            return chosen
        for name in COMPILERS:
            if shutil.which(name):
                return [name]
        raise self.error(
            f"No C compiler was found, and {self.title[0].lower()}{self.title[1:]} is compiled for each machine.",
            hint="apt-get install gcc, or name one: CC=/path/to/compiler",
        )
