"""The table of commands, which ``segformer-edge``, shell completion, the documentation and the tests read."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from segformer_edge.cli import Parser


@dataclass(frozen=True)
class Command:
    """One command: the module with its ``build_parser()`` and ``main(argv)``, imported only when it is asked for."""

    module: str
    about: str
    #: Whether it runs files in its own process, which a damaged one may end.
    guarded: bool = False

    def parser(self) -> Parser:
        """Its options. The modules import neither torch nor a runtime for this."""
        parser: Parser = import_module(self.module).build_parser()
        return parser

    def main(self, argv: list[str]) -> int:
        """Run it; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
        code: int = import_module(self.module).main(argv)
        return code


COMMANDS = {
    "quantize": Command("segformer_edge.quantize", "a trained SegFormer in, verified INT8 files and a report out"),
    "evaluate": Command("segformer_edge.evaluate", "mIoU of an exported file or of a float checkpoint", guarded=True),
    "profile": Command("segformer_edge.profile", "memory of an exported file, or the time of its operators"),
    "camera": Command(
        "segformer_edge.camera.command", "segment a camera, a clip or images; show, serve, record", guarded=True
    ),
    "train": Command("segformer_edge.train", "float or quantization-aware training"),
    "sensitivity": Command("segformer_edge.sensitivity", "which parts lose most in INT8"),
    "erf": Command("segformer_edge.erf", "effective receptive field of each stage and the head, float and INT8"),
    "firmware": Command("segformer_edge.firmware", "a file for TFLite Micro as C sources"),
    "targets": Command("segformer_edge.targets", "what can be exported to, and what is installed for it"),
    "models": Command("segformer_edge.models", "NVIDIA's published checkpoints, which --weights takes by name"),
    "doctor": Command("segformer_edge.doctor.command", "what this machine has, what is missing, and how to mend it"),
    "completion": Command("segformer_edge.completion", "completion for bash, zsh or fish"),
    "emulation": Command("segformer_edge.emulation.__main__", "run exported files on emulated ARM CPUs"),
}
