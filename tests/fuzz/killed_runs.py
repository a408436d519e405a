"""Kills ``quantize`` at random moments and looks at what it leaves.

    python -m tests.fuzz.killed_runs [--kills 50] [--seed 0] [--targets onnx]

Half of the runs write into a folder that is not there, half over an earlier result. Afterwards the folder is absent or
as before, or complete: the report can be read and every file has the hash in its sidecar.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from segformer_edge.runtime.metadata import ArtifactMetadata, sha256_of


def contents(out: Path) -> dict[str, str]:
    """Name -> hash of every file; empty where there is no folder."""
    return {path.name: sha256_of(path) for path in sorted(out.iterdir())} if out.exists() else {}


def check_complete(out: Path) -> None:
    """Raise where the folder is not a whole result."""
    report = json.loads((out / "report.json").read_text())
    for target in report["targets"]:
        assert target["status"] == "ok", target
        ArtifactMetadata.load(out / target["files"][0])
    assert (out / "report.html").exists() and (out / "encodings.json").exists()


def command(out: Path, targets: str, encodings: Path | None) -> list[str]:
    """``quantize`` on the demo checkpoint at 64x64, without scoring."""
    words = [sys.executable, "-m", "segformer_edge.quantize", "--size", "64", "--targets", targets, "--force"]
    more = ["--encodings", str(encodings)] if encodings else []
    return [*words, "--eval", "demo", "--max-drop", "100", "--out", str(out), *more]


def main() -> int:
    """Exit code 1 where a run left something else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default="onnx")
    options = parser.parse_args()
    chance, found, begun = random.Random(options.seed), Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        good, out = Path(folder, "good"), Path(folder, "out")
        subprocess.run(command(good, options.targets, None), check=True, stdout=subprocess.DEVNULL)
        needed: float | None = None
        for number in itertools.count():
            if found["killed"] == options.kills:
                break
            shutil.rmtree(out, ignore_errors=True)
            if number % 2:
                shutil.copytree(good, out)
            before = contents(out)
            start = time.monotonic()
            process = subprocess.Popen(
                command(out, options.targets, good / "encodings.json"),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            # Half of them near the end, where files are moved.
            moment = chance.uniform(0.0 if number % 4 < 2 else 0.5, 1.0)
            try:
                process.wait(timeout=None if needed is None else needed * moment)
                assert process.returncode == 0, process.returncode
                needed = time.monotonic() - start  # the first run is left alone; a machine's pace changes
                found["ended before"] += 1
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                found["killed"] += 1
            if contents(out) == before:
                found["as before"] += 1
            else:
                check_complete(out)
                found["complete"] += 1
        subprocess.run(command(out, options.targets, good / "encodings.json"), check=True, stdout=subprocess.DEVNULL)
        check_complete(out)
        left = sorted(path.name for path in Path(folder).iterdir())
        assert left == ["good", "out"], left
    print(json.dumps({"kills": dict(found), "seconds": round(time.monotonic() - begun)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
