"""Loads and runs damaged versions of an exported file, each in a process of its own, and counts what becomes of them.

    python -m tests.fuzz.damaged_files FILE... [--count 200] [--seed 0] [--keep DIR]

The sidecar gets the damaged file's hash, so that all that stands between the damage and the runtime is what looks into
the file. One JSON object a FILE on stdout.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from segformer_edge.errors import SegformerEdgeError
from segformer_edge.runtime.formats import RUNTIMES
from segformer_edge.runtime.latency import grey_image
from segformer_edge.runtime.metadata import ArtifactMetadata, sha256_of
from segformer_edge.runtime.segmenter import Segmenter
from tests.fuzz.mutations import mutated

#: Seconds that loading and one inference may take.
PATIENCE = 60
#: What a runtime imports, done once before the processes divide.
_IMPORTS = {
    "executorch": ("torch", "executorch.kernels.quantized", "executorch.extension.pybindings._portable_lib"),
    "tflite": ("ai_edge_litert.interpreter", "ai_edge_litert.compiled_model"),
    "openvino": ("openvino",),
    "onnx": ("onnxruntime",),
    "tflm": ("tflite_micro.python.tflite_micro.runtime",),
}


def outcome(path: Path) -> str:
    """Load and run ``path`` in a child: "ran", "refused: ...", "error: ..." (no error of ours) or "crashed: SIG..."."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            signal.alarm(PATIENCE)
            os.write(writer, _run(path).encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return f"crashed: {signal.Signals(os.WTERMSIG(status)).name}"
    return said or f"crashed: exit code {os.WEXITSTATUS(status)}"


def _run(path: Path) -> str:
    try:
        segmenter = Segmenter.load(path)
        segmenter.infer(segmenter.prepare(grey_image(segmenter.metadata.size)))
    except SegformerEdgeError as error:
        return f"refused: {error.args[0]}"
    except BaseException as error:
        return f"error: {type(error).__name__}: {error}"
    return "ran"


def damaged_outcomes(file: Path, count: int, seed: int, keep: Path | None = None) -> dict[str, int]:
    """Outcome of each of ``count`` damaged versions of ``file``, counted; "refused" and "ran" without their words.

    The process must not have run a file before: runtimes keep threads, which a forked child does not have.
    """
    metadata = ArtifactMetadata.load(file)
    for module in _IMPORTS[metadata.format]:
        importlib.import_module(module)
    parts = sorted(metadata.files)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            chance = random.Random(f"{seed}/{number}")
            for name in parts:
                shutil.copyfile(file.parent / name, Path(folder, name))
            # The larger part is weights alone where there are two.
            name = parts[0] if len(parts) == 1 or chance.random() < 0.1 else file.name
            Path(folder, name).write_bytes(mutated((file.parent / name).read_bytes(), chance))
            copy = Path(folder, file.name)
            replace(metadata, files={name: sha256_of(Path(folder, name)) for name in parts}).save(copy)
            said = outcome(copy)
            kind = said.split(":")[0]
            found[kind if kind in ("ran", "refused") else said[:200]] += 1
            if keep is not None and kind not in ("ran", "refused"):
                shutil.copytree(folder, keep / f"{metadata.format}-{seed}-{number}", dirs_exist_ok=True)
    return dict(found)


def main() -> int:
    """Exit code 1 where anything but "ran" and "refused" came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    bad = False
    for file in options.files:
        start = time.monotonic()
        found = damaged_outcomes(file, options.count, options.seed, options.keep)
        form = ArtifactMetadata.load(file).format
        print(json.dumps({"file": file.name, "format": form, **found, "seconds": round(time.monotonic() - start, 1)}))
        bad |= bool(set(found) - {"ran", "refused"})
    return int(bad)


if __name__ == "__main__":
    assert set(_IMPORTS) == set(RUNTIMES)
    sys.exit(main())
