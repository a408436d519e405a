"""``segformer-edge COMMAND`` and ``python -m segformer_edge COMMAND``: every command under one name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from segformer_edge import __version__
from segformer_edge.cli import EXIT_OK, did_you_mean, run
from segformer_edge.errors import UsageError


@dataclass(frozen=True)
class Command:
    """One command: the module whose ``main(argv)`` it is, imported only when it is asked for."""

    module: str
    about: str
    #: Whether it runs files in its own process, which a damaged one may end.
    guarded: bool = False


COMMANDS = {
    "quantize": Command("segformer_edge.quantize", "a trained SegFormer in, verified INT8 files and a report out"),
    "evaluate": Command("segformer_edge.evaluate", "mIoU of an exported file or of a float checkpoint", guarded=True),
    "profile": Command("segformer_edge.profile", "memory of an exported file, or the time of its operators"),
    "camera": Command(
        "segformer_edge.camera.command", "segment a camera, a clip or images; show, serve, record", guarded=True
    ),
    "train": Command("segformer_edge.train", "float or quantization-aware training"),
    "sensitivity": Command("segformer_edge.sensitivity", "which parts lose most in INT8"),
    "firmware": Command("segformer_edge.firmware", "a file for TFLite Micro as C sources"),
    "targets": Command("segformer_edge.targets", "what can be exported to, and what is installed for it"),
    "emulation": Command("segformer_edge.emulation.__main__", "run exported files on emulated ARM CPUs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with the rest of ``argv``; returns its exit code. Raises UsageError for an unknown one."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return EXIT_OK
    if name in ("-V", "--version"):
        print(f"segformer-edge {__version__}")
        return EXIT_OK
    if name not in COMMANDS:
        raise UsageError(f"There is no command '{name}'.", hint=did_you_mean(name, COMMANDS))
    code: int = import_module(COMMANDS[name].module).main(rest)
    return code


def usage() -> str:
    """The commands, one a line."""
    lines = [f"  {name:<12} {command.about}" for name, command in COMMANDS.items()]
    return "\n".join([
        "usage: segformer-edge COMMAND [options]", "",
        "SegFormer on devices with little memory: quantize, export, run and measure.", "", *lines, "",
        "segformer-edge COMMAND --help says what a command takes.",
    ])  # fmt: skip


def entry() -> int:
    """What the installed program ``segformer-edge`` calls."""
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS and COMMANDS[sys.argv[1]].guarded:
        from segformer_edge.guard import stand_guard

        stand_guard()
    return run(main)


if __name__ == "__main__":
    sys.exit(entry())
