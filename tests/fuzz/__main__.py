"""``make fuzz``: every reader for its share of the time, then damaged files of every format, then killed runs."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.fuzz.readers import READERS


def main() -> int:
    """Exit code 1 where something was found; the inputs are in the work folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all readers together")
    parser.add_argument("--count", type=int, default=200, help="damaged files a format")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--work", type=Path, default=Path("out/fuzz"))
    options = parser.parse_args()
    failed = []

    def call(name: str, *words: object) -> None:
        print(f"-- {name}", flush=True)
        if subprocess.run([sys.executable, "-m", *map(str, words)]).returncode:
            failed.append(name)

    share = max(1, options.seconds // len(READERS))
    for reader in READERS:
        call(reader, "tests.fuzz.coverage_guided", reader, share, options.work)
    files = options.work / "files"
    call("files to damage", "segformer_edge.quantize", "--size", 64, "--force", "--out", files, "--max-drop", 100)
    names = [files / f"model{suffix}" for suffix in (".pte", ".tflite", ".xml", ".onnx")]
    call("damaged files", "tests.fuzz.damaged_files", *names, "--count", options.count, "--keep", options.work / "keep")
    if options.kills:
        call("killed runs", "tests.fuzz.killed_runs", "--kills", options.kills)
    print(f"found something: {', '.join(failed)} (see {options.work})" if failed else "nothing found")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
