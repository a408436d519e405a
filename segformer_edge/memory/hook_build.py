"""Compiles the hooks, C files that are loaded into a measured program, once per source, into the user's cache folder.

``hook.c`` counts the heap, on this machine or an emulated CPU; segformer_edge.timing has another.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from segformer_edge.emulation.architectures import Cpu
from segformer_edge.emulation.errors import EmulationError
from segformer_edge.emulation.sysroot import Sysroot, cache_folder
from segformer_edge.errors import SegformerEdgeError

SOURCE = Path(__file__).with_name("hook.c")
_TABLES = "hook_tables.h"
#: Neither start files nor headers: the hook needs only the C library of the program it is loaded into.
_FLAGS = ("-O2", "-fPIC", "-fno-builtin", "-nostdlib", "-shared")
COMPILERS = ("cc", "gcc", "clang")
_PROBE = "import ctypes; hook = ctypes.CDLL(None).hook_allocations; hook.restype = ctypes.c_ulong; print(hook())"


class HookError(SegformerEdgeError):
    """A hook cannot be built or does not work here; some things can be measured without it."""


def host_hook() -> Path:
    """The allocator hook for programs of this machine, as a shared library to preload. Raises HookError."""
    return host_library((SOURCE, SOURCE.with_name(_TABLES)), "allocator", _try)


def host_library(sources: Sequence[Path], what: str, check: Callable[[Path], None] | None = None) -> Path:
    """The first of ``sources``, which may include the others, compiled for this machine unless that was done before.

    ``what`` names the hook in messages; ``check`` tries a new library and raises HookError. Raises HookError.
    """
    if not sys.platform.startswith("linux"):
        raise HookError(f"The {what} hook needs Linux.", hint="Measure in a Linux container or on the device.")
    compiler = _find_compiler(what)
    library = _library(cache_folder() / "hook", sources, compiler)
    if not library.exists():
        _build([[*compiler, *_FLAGS, "-o", "{library}", str(sources[0])]], {}, library, what)
        if check is not None:
            check(library)
    return library


def emulated_hook(sysroot: Sysroot, cpu: Cpu) -> Path:
    """The hook for programs on ``cpu``, built there by the sysroot's own compiler. Raises EmulationError."""
    tools = sysroot.architecture.compiler
    library = _library(sysroot.folder, (SOURCE, SOURCE.with_name(_TABLES)), [tools.cc1, *tools.options])
    if not library.exists():
        steps = [
            [tools.cc1, "-quiet", *_FLAGS[:3], *tools.options, "-o", "{library}.s", str(SOURCE)],
            [tools.assembler, "-o", "{library}.o", "{library}.s"],
            [tools.linker, "-shared", "-o", "{library}", "{library}.o"],
        ]
        try:
            commands = [sysroot.program(cpu, program, arguments) for program, *arguments in steps]
            _build(commands, sysroot.environment(), library, "allocator")
        except HookError as error:
            raise EmulationError(f"On the emulated {cpu.name}: {error.args[0]}") from error
    return library


def _find_compiler(what: str) -> list[str]:
    """$CC, which may hold options, else the first of COMPILERS that is installed."""
    chosen = shlex.split(os.environ.get("CC", ""))
    if chosen and shutil.which(chosen[0]):
        return chosen
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise HookError(
        f"No C compiler was found, and the {what} hook is compiled for each machine.",
        hint="apt-get install gcc, or name one: CC=/path/to/compiler",
    )


def _library(folder: Path, sources: Sequence[Path], how: Iterable[str]) -> Path:
    made_of = (*(source.read_bytes() for source in sources), "\0".join((*how, *_FLAGS)).encode())
    key = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
    return folder / f"{sources[0].stem}-{key}.so"


def _build(commands: Sequence[Sequence[str]], environment: Mapping[str, str], library: Path, what: str) -> None:
    """Run ``commands`` with a scratch name for ``{library}``; what they made appears under its own name at once."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=library.parent, prefix=".hook-") as folder:
        scratch = Path(folder) / library.name
        for command in commands:
            words = [word.replace("{library}", str(scratch)) for word in command]
            try:
                done = subprocess.run(
                    words, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=dict(environment) or None
                )
            except OSError as error:
                raise HookError(f"The {what} hook was not built: {words[0]}: {error.strerror}.") from error
            if done.returncode:
                last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
                raise HookError(f"The {what} hook was not built: {last}", hint="Name another compiler: CC=gcc")
        scratch.replace(library)


def _try(library: Path) -> None:
    """Other C libraries than glibc lack what the hook calls; then it goes, and says so."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _PROBE],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LD_PRELOAD": str(library)},
    )
    if done.returncode or not done.stdout.strip().isdigit() or int(done.stdout) == 0:
        library.unlink(missing_ok=True)
        words = (done.stderr.strip() or "it counted nothing").splitlines()[-1]
        raise HookError(f"The allocator hook does not work with this Python: {words}", hint="It needs glibc.")
