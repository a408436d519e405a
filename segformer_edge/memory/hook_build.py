"""Compiles ``hook.c`` for this machine or for an emulated CPU, once per source, into the user's cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from segformer_edge.compiler import FLAGS, Library
from segformer_edge.emulation.architectures import Cpu
from segformer_edge.emulation.errors import EmulationError
from segformer_edge.emulation.sysroot import Sysroot, cache_folder
from segformer_edge.errors import SegformerEdgeError

SOURCE = Path(__file__).with_name("hook.c")
_TABLES = "hook_tables.h"
_PROBE = "import ctypes; hook = ctypes.CDLL(None).hook_allocations; hook.restype = ctypes.c_ulong; print(hook())"


class HookError(SegformerEdgeError):
    """A hook cannot be built or does not work here; some things can be measured without it."""


def host_hook() -> Path:
    """The hook for programs of this machine, as a shared library to preload. Raises HookError."""
    if not sys.platform.startswith("linux"):
        raise HookError("The allocator hook needs Linux.", hint="Measure in a Linux container or on the device.")
    return _hook().build(cache_folder() / "hook", _try)


def emulated_hook(sysroot: Sysroot, cpu: Cpu) -> Path:
    """The hook for programs on ``cpu``, built there by the sysroot's own compiler. Raises EmulationError."""
    tools, hook = sysroot.architecture.compiler, _hook()
    library = hook.path(sysroot.folder, [tools.cc1, *tools.options])
    if not library.exists():
        steps = [
            [tools.cc1, "-quiet", *FLAGS[:3], *tools.options, "-o", "{library}.s", str(SOURCE)],
            [tools.assembler, "-o", "{library}.o", "{library}.s"],
            [tools.linker, "-shared", "-o", "{library}", "{library}.o"],
        ]
        try:
            commands = [sysroot.program(cpu, program, arguments) for program, *arguments in steps]
            hook.run(commands, sysroot.environment(), library)
        except HookError as error:
            raise EmulationError(f"On the emulated {cpu.name}: {error.args[0]}") from error
    return library


def _hook() -> Library:
    return Library("The allocator hook", (SOURCE, SOURCE.with_name(_TABLES)), HookError)


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
