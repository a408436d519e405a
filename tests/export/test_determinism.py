"""The same command twice gives the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys

from segformer_edge.runtime.metadata import sha256_of

#: These hold seconds and milliseconds.
MEASURED = ("report.json", "report.html")


def test_a_second_run_in_another_process_gives_the_same_bytes(tiny_run, tiny_dataset, tmp_path):
    """With other hashes of strings, so in another order of sets, at another time and in another folder."""
    out = tmp_path / "again"
    command = [
        sys.executable, "-m", "segformer_edge.quantize", "--weights", tiny_run.weights, "--size", "64x96",
        "--calibration", tiny_run.options.calibration, "--eval", tiny_dataset, "--max-drop", 100, "--out", out,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    subprocess.run(list(map(str, command)), env=environment, check=True, stdout=subprocess.DEVNULL, timeout=500)

    def hashes(folder):
        return {file.name: sha256_of(file) for file in folder.iterdir() if file.name not in MEASURED}

    again = hashes(out)
    assert {"model.pte", "model.tflite", "model.xml", "model.bin", "model.onnx", "encodings.json"} < set(again)
    assert again == hashes(tiny_run.out)
