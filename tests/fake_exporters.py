"""Exporters that do one thing, well or badly, for tests of what surrounds them. Imported by the exporting processes."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from segformer_edge.export.exporter import Exported, float_specs
from segformer_edge.export.targets import TARGETS, Target
from segformer_edge.report.schema import Ops
from segformer_edge.rewrite.graph import EdgeSegFormer

#: A folder with the ``model.onnx`` that the others start from.
SOURCE = "FAKE_EXPORTERS_SOURCE"


def _exported(network: EdgeSegFormer, size: tuple[int, int], path: Path) -> Exported:
    specs = float_specs(network, size, ("image", "output"))
    return Exported((path.name,), *specs, Ops(None, None, None, None), {})


class Copies:
    """Delivers a right file at once."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        path = stem.with_suffix(".onnx")
        shutil.copy(Path(os.environ[SOURCE]) / "model.onnx", path)
        return _exported(network, size, path)


class Lies:
    """Delivers a file that loads and computes the opposite."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        import onnx

        model = onnx.load(Path(os.environ[SOURCE]) / "model.onnx")
        last = next(node for node in model.graph.node if "output" in node.output)
        last.output[0] = "right"
        model.graph.node.append(onnx.helper.make_node("Neg", ["right"], ["output"]))
        path = stem.with_name("model_lies.onnx")
        onnx.save(model, path)
        return _exported(network, size, path)


class Raises:
    """Fails half-way through its file."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        stem.with_suffix(".tflite").write_bytes(b"half a fi")
        raise NotImplementedError("no kernel for frobnicate")


class Dies:
    """Takes its process down half-way through its file."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        stem.with_suffix(".tflite").write_bytes(b"half a fi")
        print("segmentation violation in kernel 7", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Forgets:
    """Writes nothing."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        return _exported(network, size, stem.with_name("model_forgotten.onnx"))


class Babbles:
    """Writes what no runtime loads."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        path = stem.with_name("model_babbles.onnx")
        path.write_bytes(b"babble " * 100)
        return _exported(network, size, path)


class Fills:
    """Writes 64 MB."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        path = stem.with_suffix(".onnx")
        path.write_bytes(bytes(64_000_000))
        return _exported(network, size, path)


class FillsQuietly:
    """Fills the disk as some native writers do, which stop in silence and fail later about something else."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        try:
            Fills().export(network, size, stem)
        except OSError:
            raise ValueError("cannot parse the model") from None
        raise AssertionError


FAKES = (Copies, Lies, Raises, Dies, Forgets, Babbles, Fills, FillsQuietly)


def fake_targets() -> dict[str, Target]:
    """One target for each, named by what it does."""
    return {
        fake.__name__.lower(): Target(
            fake.__name__.lower(), "onnx", f"fake_exporters:{fake.__name__}", "mixed", (), "onnx", fake.__doc__ or ""
        )
        for fake in FAKES
    }


if __name__ == "__main__":
    from segformer_edge.cli import run
    from segformer_edge.quantize import main

    TARGETS.update(fake_targets())
    sys.exit(run(main))
