"""``python -m segformer_edge.emulation prepare [ARCH [--with NAME] [--force]] | run CPU ARGUMENTS...``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from segformer_edge.cli import Parser, print_next, run
from segformer_edge.emulation.architectures import ARCHITECTURES, find_addition, find_architecture
from segformer_edge.errors import UsageError

_PROG = "python -m segformer_edge.emulation"


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser(
        _PROG,
        "Emulated ARM CPUs with the runtimes of a device.",
        epilog=f"example: {_PROG} run cortex-a72 -m segformer_edge.evaluate out/model.tflite --data demo --limit 4",
    )
    parser.add_argument("action", choices=("prepare", "run"), help="build the sysroot, or run its Python")
    parser.add_argument("name", nargs="?", help=f"prepare: {', '.join(ARCHITECTURES)}; run: a CPU like cortex-a72")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="run: what Python is given")
    return parser


def _preparation() -> Parser:
    """What may stand behind ``prepare ARCH``."""
    known = ", ".join(addition.name for entry in ARCHITECTURES.values() for addition in entry.additions)
    parser = Parser(f"{_PROG} prepare ARCH", "Builds the emulated CPUs of one architecture.")
    parser.add_argument("--with", dest="addition", metavar="NAME", help=f"a runtime that is large: {known}")
    parser.add_argument("--force", action="store_true", help="build it anew")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code, or that of the emulated program."""
    options = build_parser().parse_args(argv)

    from segformer_edge.emulation.plugins import prepare_plugins
    from segformer_edge.emulation.prepare import add, prepare
    from segformer_edge.emulation.sysroot import run_python
    from segformer_edge.progress import progress_for_terminal

    if options.action == "run":
        if options.name is None:
            raise UsageError("run needs a CPU.", hint=f"{_PROG} run cortex-a72 -m MODULE")
        return run_python(options.name, options.arguments).returncode
    architecture = find_architecture(options.name or "aarch64")
    wanted = _preparation().parse_args(options.arguments)
    addition = find_addition(architecture, wanted.addition) if wanted.addition else None
    with progress_for_terminal() as tell:
        sysroot = prepare(architecture, tell, force=wanted.force)
        prepare_plugins(tell, force=wanted.force)
        if addition is not None:
            add(sysroot, addition, tell, force=wanted.force)
    print(f"{architecture.name} is ready in {sysroot.folder}: {', '.join(cpu.name for cpu in architecture.cpus)}")
    cpu = architecture.cpus[0].name
    print_next("python", "-m", "segformer_edge.profile", "FILE", "--on", cpu, fill="with your .tflite for FILE")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
