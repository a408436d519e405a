"""The counts and the plot of benchmarks/scaling.py."""

from __future__ import annotations

import pytest
import torch

from segformer_edge.cli import EXIT_OK
from segformer_edge.model.config import variant_config
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer


@pytest.mark.parametrize("variant", ["b0", "b2"])
def test_multiply_accumulates_are_those_that_run(variant, monkeypatch):
    from scaling import CLASSES, macs_of

    counted = {"linear": 0, "attention": 0}
    conv2d, bmm = torch.nn.functional.conv2d, torch.bmm

    def counting_conv2d(x, weight, *arguments, **options):
        y = conv2d(x, weight, *arguments, **options)
        if weight.shape[0] > 1:  # the mean of a norm is none
            counted["linear"] += y.numel() * weight[0].numel()
        return y

    def counting_bmm(a, b):
        y = bmm(a, b)
        counted["attention"] += y.numel() * a.shape[2]
        return y

    monkeypatch.setattr(torch.nn.functional, "conv2d", counting_conv2d)
    monkeypatch.setattr(torch, "bmm", counting_bmm)
    config = variant_config(variant, CLASSES)
    with torch.no_grad():
        EdgeSegFormer(SegFormer(config).eval())(torch.zeros(1, 3, 96, 96))
    assert (counted["linear"], counted["attention"]) == macs_of(config, (96, 96))


def test_points_are_measured_written_and_drawn(tmp_path, capsys):
    import scaling

    arguments = ["--sides", "32,64", "--variants", "b0", "--seconds", "0", "--out", str(tmp_path)]
    assert scaling.main(arguments) == EXIT_OK
    _, points = scaling.load(tmp_path / "scaling.json")
    assert [point.side for point in points] == [32, 64]
    assert 0 < points[0].peak_bytes < points[1].peak_bytes and points[0].ms > 0
    svg = (tmp_path / "scaling.svg").read_bytes()
    assert svg == scaling.plot(points) and b"B0" in svg
    assert len(capsys.readouterr().out.splitlines()) == 2
