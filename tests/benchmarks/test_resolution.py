"""One size's ranges at another size: every figure is there, and float32 is that of the size."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.processing import Preprocessing
from segformer_edge.evaluation import TorchSegmenter, evaluate
from segformer_edge.model.checkpoint import load_checkpoint


def test_ranges_of_one_size_are_used_at_another(
    monkeypatch: pytest.MonkeyPatch, tiny_weights, tiny_dataset, calibration_folder, tmp_path, capsys
):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import resolution

    written = tmp_path / "figures.json"
    code = resolution.main(
        [
            *("--weights", str(tiny_weights), "--data", tiny_dataset, "--calibration", str(calibration_folder)),
            *("--size", "64x96", "--sizes", "64x64", "--json", str(written)),
        ]
    )
    sys.modules.pop("resolution")
    assert code == 0
    row = json.loads(written.read_text())["sizes"]["64x64"]
    float32 = TorchSegmenter(load_checkpoint(str(tiny_weights)).model, Preprocessing((64, 64)))
    assert row["base"]["fp32"] == row["own"]["fp32"] == evaluate(float32, open_dataset(tiny_dataset)).miou
    assert 0 < row["base"]["int8"] < 1 and 0 < row["own"]["int8"] < 1
    printed = capsys.readouterr().out.splitlines()[-1].split()
    assert printed == [
        "64x64",
        *(f"{value:.4f}" for value in (row["base"]["fp32"], row["base"]["int8"], row["own"]["int8"])),
    ]
