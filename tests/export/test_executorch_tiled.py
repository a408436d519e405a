"""The tiled network in ExecuTorch: the untiled one's labels, from one delegate call for each band of the head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from quantization.calibration import calibrate
from quantization.encodings import apply_encodings, encodings_of
from quantization.recipe import load_recipe
from segformer_edge.model.config import variant_config
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling

SIZE = (64, 96)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Labels of two images from the untiled and the tiled file, and the kinds of their instructions in order."""
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.runtime import Runtime

    from segformer_edge.export.executorch import ExecuTorchExporter

    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = SegFormer(replace(variant_config("b0", 6), depths=(1, 1, 1, 1))).eval()
        batches = [torch.randn(1, 3, *SIZE) for _ in range(2)]
    network = EdgeSegFormer(model, "labels")
    calibrate(network, batches, load_recipe("lean"))
    encodings = encodings_of(network, "lean")
    found = {}
    for name, tiling in (("whole", None), ("tiled", Tiling((2, 2, 1, 1), (1, 2, 2, 1), head=2))):
        network = EdgeSegFormer(model, "labels")
        apply_encodings(network, encodings)
        if tiling is not None:
            network.tile(tiling)
        stem = tmp_path_factory.mktemp(name) / "model"
        exported = ExecuTorchExporter().export(network, SIZE, stem)
        assert (exported.input.dtype, exported.input.shape) == ("int8", (1, *SIZE, 3))
        plan = deserialize_pte_binary(stem.with_suffix(".pte").read_bytes()).program.execution_plan[0]
        method = Runtime.get().load_program(stem.with_suffix(".pte")).load_method("forward")
        params = network.image.params
        labels = []
        for batch in batches:
            steps = torch.round(batch.permute(0, 2, 3, 1) / params.scale) + params.zero_point
            labels.append(method.execute([steps.clamp(-128, 127).to(torch.int8).contiguous()])[0].clone().numpy())
        kinds = [type(instruction.instr_args).__name__ for instruction in plan.chains[0].instructions]
        found[name] = labels, [kind for kind in kinds if kind in ("DelegateCall", "KernelCall")]
    return found


def test_tiling_changes_no_label(runs):
    for whole, tiled in zip(runs["whole"][0], runs["tiled"][0], strict=True):
        assert whole.shape == (1, SIZE[0] // 4, SIZE[1] // 4) and len(np.unique(whole)) > 1
        assert np.array_equal(whole, tiled)


def test_each_band_of_the_head_is_a_delegate_call(runs):
    """The network and its argmax without bands; the encoder and two bands with two."""
    assert [runs[name][1].count("DelegateCall") for name in ("whole", "tiled")] == [1, 3]


def test_the_logits_of_one_band_are_gone_before_the_next_band_begins(runs):
    calls = runs["tiled"][1]
    _, first, second = (place for place, kind in enumerate(calls) if kind == "DelegateCall")
    assert calls[first + 1 : second].count("KernelCall") >= 2  # argmax, and to uint8
