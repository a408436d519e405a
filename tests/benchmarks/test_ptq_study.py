"""The comparison of post-training methods: its table, its score, and the equalisation that must change nothing."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from segformer_edge.model.config import variant_config
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts there import each other from their own folder; what they register is taken back."""
    from quantization import observers

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = dict(observers.OBSERVERS)
    yield
    for name in set(observers.OBSERVERS) - set(before):
        del observers.OBSERVERS[name]
    for name in [name for name in sys.modules if name.split(".")[0] in ("ptq", "ptq_study")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def network() -> EdgeSegFormer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SegFormer(dataclasses.replace(variant_config("b0", 4), depths=(1, 1, 1, 1)))
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return EdgeSegFormer(model)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.usefixtures("benchmarks")
@torch.no_grad()
def test_equalisation_keeps_every_bit_of_the_float_network(network, image):
    from ptq.equalise import KINDS, equalise

    for kind in KINDS:
        changed = copy.deepcopy(network)
        equalise(changed, [image], [kind], strength=1.0)
        assert torch.equal(changed(image), network(image)), kind
        assert any(not torch.equal(a, b) for a, b in zip(changed.parameters(), network.parameters(), strict=True)), kind


@pytest.mark.usefixtures("benchmarks")
@torch.no_grad()
def test_equalised_channels_of_fc1_fill_the_range_more_evenly(network, image):
    from ptq.equalise import channel_ranges, equalise

    changed = copy.deepcopy(network)
    equalise(changed, [image], ["fc1"])
    spread = []
    for net in (network, changed):
        site = net.stages[0].blocks[0].ffn.fc1.output
        ranges = channel_ranges(net, [image], [site])[site]
        spread.append((ranges.max() / ranges.min()).item())
    assert spread[1] <= 2.0 < spread[0]


@pytest.mark.usefixtures("benchmarks")
@torch.no_grad()
def test_corrected_biases_leave_no_mean_error(network, image):
    from ptq.bias_correction import correct_biases

    from quantization.calibration import calibrate
    from quantization.recipe import load_recipe
    from quantization.sites import named_sites

    changed = copy.deepcopy(network)
    calibrate(changed, [image], load_recipe("mixed"))
    expected = network(image).mean(dim=(0, 2, 3))
    changed.decode_head.classifier.output.dtype = "float"
    before = changed(image).mean(dim=(0, 2, 3))
    correct_biases(changed, [image])
    after = changed(image).mean(dim=(0, 2, 3))
    assert all(site.mode.name == "FAKE" for _, site in named_sites(changed))
    assert (after - expected).abs().max() < 1e-4 < (before - expected).abs().max()


@pytest.mark.usefixtures("benchmarks")
def test_command_prints_and_writes_one_row_a_method(tmp_path, capsys):
    import ptq_study

    arguments = ["--size", "64", "--calibrate", "2", "--score", "2", "--methods", "min_max,mse", "--recipe", "mixed"]
    assert ptq_study.main([*arguments, "--json", str(tmp_path / "table.json")]) == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["min_max", "mse"]
    for row in rows:
        assert 0.0 < row["kl"] < 0.5
        assert 0.5 < row["agreement"] <= 1.0
    assert "min_max" in capsys.readouterr().out


@pytest.mark.usefixtures("benchmarks")
def test_unknown_method_names_the_nearest():
    import ptq_study

    from segformer_edge.errors import UsageError

    with pytest.raises(UsageError, match=r"percentile_99\.9"):
        ptq_study.main(["--methods", "percentile_99"])
