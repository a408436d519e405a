"""The verdict on 100 kB: both files are made and run, and what was found is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from segformer_edge.data.datasets import open_dataset
from segformer_edge.errors import DataError
from segformer_edge.export.targets import choose_targets
from segformer_edge.pipeline import QuantizeOptions
from segformer_edge.progress import Progress
from segformer_edge.rewrite.tiling import Tiling


@pytest.fixture
def module():
    import verdict_100k

    return verdict_100k


def test_both_files_run_and_agree(module, monkeypatch, tmp_path, tiny_weights, tiny_dataset, calibration_folder):
    monkeypatch.setattr(module, "BUDGET", 30_000)
    options = QuantizeOptions(
        out=tmp_path / "out", weights=str(tiny_weights), calibration=calibration_folder, size=(32, 32),
        output="labels", targets=choose_targets(["tflm"]), max_drop=100.0, dataset=open_dataset(tiny_dataset),
    )  # fmt: skip
    found = module.verdict("tiny", options, Progress())
    assert found.same == found.images == 4 and found.holds
    assert found.activations <= 30_000 < found.untiled_activations
    assert found.operators > found.untiled_operators and max(*found.tiling["hidden"], found.tiling["head"]) > 1
    page = tmp_path / "page.md"
    module.publish(page, [found], [module.Npu("ethos-u1", "1", 7, 2.0, 3, 0)], [module.Floor(32, 100, 110, 7, 9)])
    assert "| PASS |" in page.read_text() and "| 32x32 | 110 | 7 | 9 | fits |" in page.read_text()
    (kept,) = module.earlier(page.with_suffix(".json"), "verdicts", module.Verdict)
    assert replace(kept, tiling={}) == replace(found, tiling={})
    assert Tiling.from_json(kept.tiling) == Tiling.from_json(found.tiling)
    assert not replace(found, same=3).holds and not replace(found, activations=30_001).holds


def test_a_record_of_something_else_is_refused(module, tmp_path):
    path = tmp_path / "page.json"
    path.write_text(json.dumps({"verdicts": [{"colour": "red"}]}))
    with pytest.raises(DataError, match="not written by this program"):
        module.earlier(path, "verdicts", module.Verdict)
