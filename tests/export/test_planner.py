"""From a budget to a tiling: forecasts against what the runtime takes, and what is chosen."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from quantization.calibration import calibrate
from quantization.encodings import apply_encodings, encodings_of
from quantization.recipe import load_recipe
from segformer_edge.export import planner as planner_module
from segformer_edge.export import tiling_search
from segformer_edge.export.exporter import Plan
from segformer_edge.export.planner import PIECES, Planner, recomputing, tiling_for, way_of
from segformer_edge.export.tflite import TFLiteExporter
from segformer_edge.memory.measure import measure
from segformer_edge.model.config import variant_config
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling

SIZE = (96, 96)
RECIPES = ("lean", "int8_attention", "portable", "full")
CONFIG = replace(variant_config("b0", 20), depths=(1, 1, 1, 1))


@pytest.fixture(scope="module")
def networks():
    """Recipe -> a network with encodings, labels out."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = SegFormer(CONFIG).eval()
        image = torch.randn(1, 3, 64, 64)
    made = {}
    for recipe in RECIPES:
        network = EdgeSegFormer(model, "labels")
        calibrate(network, [image], load_recipe(recipe))
        encodings = encodings_of(network, recipe)
        made[recipe] = EdgeSegFormer(model, "labels")
        apply_encodings(made[recipe], encodings)
    return made


@pytest.fixture(scope="module")
def planners(networks):
    return {recipe: Planner(network, way_of("tflite", network)) for recipe, network in networks.items()}


def test_a_budget_means_the_arena_of_built_in_kernels_or_the_growth_with_xnnpack(networks):
    assert way_of("tflite", networks["full"]).meaning == "arena"
    assert way_of("tflite", networks["portable"]).meaning == "arena"
    assert way_of("tflite", networks["lean"]).meaning == "growth"
    assert way_of("tflite", networks["int8_attention"]).meaning == "growth"
    assert way_of("executorch", networks["lean"]).meaning == "plan"
    assert way_of("onnx", networks["lean"]) is None


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("piece", [None, 16 * 1024])
def test_forecast_is_within_a_tenth_of_the_runtime(networks, planners, recipe, piece, tmp_path):
    planner, way = planners[recipe], planners[recipe].way
    pieces = list(planner.tilings(SIZE))
    tiling = pieces[0][1] if piece is None else tiling_for(CONFIG, SIZE, piece, way, planner.score_bytes)
    expected = way.bytes(planner.forecast(tiling, SIZE, packed=True))
    network = copy.deepcopy(networks[recipe]).tile(tiling)
    TFLiteExporter().export(network, SIZE, tmp_path / "model")
    found = measure(tmp_path / "model.tflite", variant="no-delegate" if way.meaning == "arena" else "compiled")
    used = found.arena_bytes if way.meaning == "arena" else found.inference_growth
    assert expected == pytest.approx(used, rel=0.10)


@pytest.mark.parametrize("piece", [None, 16 * 1024])
def test_forecast_of_a_pte_is_within_a_tenth_of_the_plan_and_the_workspace(networks, piece, tmp_path):
    from segformer_edge.export.executorch import ExecuTorchExporter

    planner = Planner(networks["lean"], way_of("executorch", networks["lean"]))
    tiling = Tiling() if piece is None else planner.tiling(SIZE, piece)
    expected = planner.way.bytes(planner.forecast(tiling, SIZE))
    ExecuTorchExporter().export(copy.deepcopy(networks["lean"]).tile(tiling), SIZE, tmp_path / "model")
    assert expected == pytest.approx(measure(tmp_path / "model.pte").run_split.activations, rel=0.10)


def test_pieces_become_finer_and_need_less_arena(planners):
    planner = planners["full"]
    tilings = [tiling for _, tiling in planner.tilings(SIZE)]
    assert len(tilings) >= 4 and len(set(map(str, tilings))) == len(tilings)
    arenas = [planner.forecast(tiling, SIZE).arena for tiling in (tilings[0], tilings[len(tilings) // 2])]
    assert arenas[1] < 0.6 * arenas[0]


def test_a_generous_budget_leaves_the_network_whole(planners):
    plan = planners["full"].plan(SIZE, 1 << 30)
    assert plan.fits and max(*plan.tiling.bands, *plan.tiling.queries, plan.tiling.head) == 1


def test_the_coarsest_tiling_that_fits_is_taken(planners):
    planner = planners["full"]
    forecasts = [(tiling, planner.forecast(tiling, SIZE).arena) for _, tiling in list(planner.tilings(SIZE))[:3]]
    budget = forecasts[2][1]
    first = next(tiling for tiling, arena in forecasts if arena <= budget)
    plan = planner.plan(SIZE, budget)
    assert plan.fits and plan.tiling == first and plan.forecast <= budget


def test_a_search_around_the_best_piece_finds_what_needs_no_more_and_the_same_each_time(planners, monkeypatch):
    monkeypatch.setattr(tiling_search, "ATTEMPTS", 25)
    planner = planners["lean"]
    needed = [planner.way.bytes(planner.forecast(tiling, SIZE)) for _, tiling in planner.tilings(SIZE)]
    plans = [planner.plan(SIZE, min(needed) * 9 // 10) for _ in range(2)]
    assert plans[0] == plans[1] and plans[0].forecast <= min(needed)
    assert plans[0].forecast == planner.way.bytes(planner.forecast(plans[0].tiling, SIZE, packed=True))


def test_a_budget_out_of_reach_is_not_searched_for(planners, monkeypatch):
    monkeypatch.setattr(planner_module, "search", lambda *_: pytest.fail("searched"))
    assert not planners["lean"].plan((64, 64), 1 << 16).fits


@pytest.mark.parametrize(
    ("blocked_by", "count"),
    [
        ("BATCH_MATMUL in stages.2.blocks.0.attention", ("queries", 2)),
        ("DEPTHWISE_CONV_2D in stages.1.blocks.1.ffn.depthwise", ("ffn", 1)),
        ("CONV_2D in stages.0.embedding.proj", ("embedding", 0)),
        ("QUANTIZE in stages.0.blocks.0.norm1", ("bands", 0)),
        ("SLICE in the decode head", ("head", None)),
        ("CONV_2D in decode_head.projections.3", ("head", None)),
    ],
)
def test_a_search_knows_what_cuts_the_operator_that_blocks(blocked_by, count):
    assert tiling_search.blocking_count(blocked_by) == count


def test_a_search_cuts_what_blocks_and_joins_what_does_not():
    """Here every part costs something, and only blocks of queries in stage 2 lower the peak."""

    def attempt(tiling):
        parts = sum(sum(getattr(tiling, name)) for name in ("bands", "queries", "ffn", "embedding")) + tiling.head
        needed = 100_000 // tiling.queries[2] + 500 * parts
        return Plan(tiling, "growth", needed, False, "BATCH_MATMUL in stages.2.blocks.0.attention")

    first = attempt(Tiling(head=6))
    best = tiling_search.search(first, attempt, 200)
    assert best.tiling.queries[2] in range(12, 17) and best.tiling.head == 1
    assert best == tiling_search.search(first, attempt, 200)


def test_what_does_not_fit_names_the_floor_the_operator_and_a_size_that_does(planners):
    planner = planners["full"]
    budget = max(planner.forecast(tiling, (32, 32)).arena for _, tiling in planner.tilings((32, 32)))
    plan = planner.plan((64, 64), budget)
    assert not plan.fits and plan.forecast > budget
    assert " in " in plan.blocked_by
    assert plan.largest_size == (32, 32)


def test_beside_an_image_that_stays_the_first_stage_is_made_anew(planners, networks, monkeypatch, tmp_path):
    """Pieces are left out: at 512x512, where they need more than this, planning them takes minutes."""
    planner, size = planners["full"], (128, 128)
    monkeypatch.setattr(Planner, "tilings", lambda *_: iter([(1 << 20, Tiling())]))
    tiling = recomputing(CONFIG, size)
    expected = planner.forecast(tiling, size).arena
    plan = planner.plan(size, expected)
    assert plan.fits and plan.tiling == tiling and plan.tiling.recompute_first
    TFLiteExporter().export(copy.deepcopy(networks["full"]).tile(tiling), size, tmp_path / "model")
    found = measure(tmp_path / "model.tflite", variant="no-delegate").arena_bytes
    assert found == pytest.approx(expected, rel=0.10)
    assert found < planner.forecast(Tiling(), size).arena / 4


def test_nothing_fits_into_a_kilobyte(planners):
    plan = planners["full"].plan((32, 32), 1024)
    assert not plan.fits and plan.largest_size is None


@pytest.mark.parametrize("piece", PIECES)
def test_every_piece_gives_a_tiling_for_every_size(planners, piece):
    for size in ((32, 32), (32, 256), (1024, 1024)):
        for planner in planners.values():
            tiling = tiling_for(CONFIG, size, piece, planner.way, planner.score_bytes)
            assert tiling.bands[0] <= size[0] // 4 and tiling.head <= size[0] // 4


def test_the_search_goes_on_where_the_first_cuts_change_nothing(networks):
    """TFLite Micro's arena peaks in the head, which the coarsest tilings leave whole."""
    planner = Planner(networks["full"], way_of("tflm", networks["full"]))
    (_, whole), (_, first), (_, second), *_ = planner.tilings((64, 64))
    arenas = [planner.forecast(tiling, (64, 64)).arena for tiling in (whole, first, second)]
    assert arenas[0] == arenas[1] == arenas[2]
    plan = planner.plan((64, 64), arenas[0] // 2)
    assert plan.fits and plan.forecast <= arenas[0] // 2
