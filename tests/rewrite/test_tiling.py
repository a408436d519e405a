"""The tiled network gives the untiled one's numbers: in float to 1e-12, quantized bit for bit.

In float64, so that the order of a sum, which may differ by band, cannot decide a rounding.
"""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantization.calibration import calibrate
from quantization.encodings import apply_encodings, encodings_of
from quantization.recipe import load_recipe
from quantization.sites import Mode, Site, set_mode
from segformer_edge.errors import UsageError
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import RowBands, Tiling, split

RECIPES = ("mixed", "lean", "full")
COUNTS = st.sampled_from([1, 2, 3, 4, 7, 99])
STAGES = st.tuples(COUNTS, COUNTS, COUNTS, COUNTS)
GROUPS = st.sampled_from([1, 2, 3, 8])
HIDDEN = st.tuples(GROUPS, GROUPS, GROUPS, GROUPS)
TILINGS = st.builds(
    Tiling,
    STAGES,
    STAGES,
    HIDDEN,
    COUNTS,
    GROUPS,
    st.booleans(),
    HIDDEN,
    embedding=STAGES,
    join_logits=st.booleans(),
    recompute_first=st.booleans(),
)
SIDES = st.sampled_from([32, 64, 96, 128])


@pytest.fixture(scope="module")
def calibrated(build, image):
    """Recipe -> (model, untiled network in float64, encodings); B0 with one block a stage."""
    made = {}
    for recipe in RECIPES:
        model = build("b0", torch.float32, depths=(1, 1, 1, 1))
        network = EdgeSegFormer(model)
        calibrate(network, [image(64, 96, dtype=torch.float32)], load_recipe(recipe))
        made[recipe] = model, network, encodings_of(network, recipe)
    return made


def outputs(network: EdgeSegFormer, x: torch.Tensor, mode: Mode) -> torch.Tensor:
    set_mode(network, mode)
    with torch.no_grad():
        return network(x.permute(0, 2, 3, 1) if network.channels_last else x)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(RECIPES), TILINGS, SIDES, SIDES, st.booleans(), st.sampled_from(["logits", "labels"]))
def test_tiled_is_untiled(calibrated, image, recipe, tiling, height, width, channels_last, output):
    model, network, encodings = calibrated[recipe]
    tiled = EdgeSegFormer(model, output)
    apply_encodings(tiled, encodings)
    tiled.tile(tiling)
    if channels_last:
        tiled.take_channels_last()
    whole, tiled = copy.deepcopy(network).double(), tiled.double()
    whole.output_form = output
    x = image(height, width)
    expected, got = outputs(whole, x, Mode.FLOAT), outputs(tiled, x, Mode.FLOAT)
    if output == "labels":
        assert (got == expected).float().mean() >= 0.999  # near ties of a random network
    else:
        assert (got - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert torch.equal(outputs(tiled, x, Mode.FAKE), outputs(whole, x, Mode.FAKE))


@given(st.integers(1, 300), st.integers(1, 400))
def test_split_covers_every_row_once(rows, bands):
    ranges = split(rows, bands)
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(rows))
    assert len(ranges) <= bands
    heights = {stop - start for start, stop in ranges[:-1]}
    assert len(heights) <= 1


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_rows_of_bands_are_rows_of_the_map(heights, data):
    site = Site("stream")
    whole = torch.randn(1, 2, sum(heights), 3)
    bands = RowBands(whole.split(heights, dim=2), site)
    start = data.draw(st.integers(0, whole.shape[2] - 1))
    stop = data.draw(st.integers(start + 1, whole.shape[2]))
    assert bands.height == whole.shape[2]
    assert torch.equal(bands.rows(start, stop), whole[:, :, start:stop])


def test_rows_of_a_band_do_not_touch_the_rest():
    """A band's rows come from the bands they lie in and from no other, or memory could not be given back."""
    site = Site("stream")
    parts = [torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), float("nan"))]
    assert torch.equal(RowBands(parts, site).rows(1, 3).flatten(), torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_a_tiling_has_at_least_one_part():
    with pytest.raises(UsageError, match="at least one part"):
        Tiling((1, 1, 1, 0))
    with pytest.raises(UsageError, match="at least one part"):
        Tiling(ffn=(1, 0, 1, 1))
    with pytest.raises(UsageError, match="at least one part"):
        Tiling(head_cells=-1)


def test_a_tiling_survives_json():
    tiling = Tiling((4, 2, 1, 1), (2, 2, 2, 2), head=8, recompute_norm=True, ffn=(1, 2, 1, 1))
    assert Tiling.from_json(json.loads(json.dumps(dataclasses.asdict(tiling)))) == tiling
