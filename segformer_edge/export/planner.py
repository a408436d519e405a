"""From a memory budget to a tiling: the coarsest that fits by the liveness model of the graph it gives.

A tiling is made from the size of a piece, the most that one band's largest tensor may take. Halving the piece walks
from the untiled network to the finest; more pieces mean more operators, which cost time and the runtime's own memory,
so the first that fits is taken.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from quantization.sites import Mode, named_sites, named_weights, set_mode
from segformer_edge.export.exporter import Plan
from segformer_edge.export.tflite_emit import KERNELS, KERNELS_BUILT_IN, KERNELS_MICRO, Kernels, build_graph
from segformer_edge.export.tflite_lifetimes import with_short_lifetimes
from segformer_edge.export.tflite_memory import BUILT_IN, COMPILED, EXECUTORCH, MICRO, Forecast, Setup, forecast
from segformer_edge.export.tiling_search import search
from segformer_edge.export.tracing import record_image
from segformer_edge.export.workspace_order import with_packed_workspace
from segformer_edge.model.config import STRIDE, SegformerConfig
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling

#: Bytes of a piece, from coarse to fine.
PIECES = tuple(5 << bits for bits in range(19, 8, -1))
#: So many tilings in a row that need more than the best end a search: finer ones only add operators from there.
PATIENCE = 2
#: Budgets below this share of what the best piece needs are out of the search's reach.
REACH = 0.8
_FEWEST_ROWS = 2
_BYTES = {"int8": 1, "int16": 2}
#: Where the first stage is made anew for every reader: rows of a band, and elements of a block's scores, by stage.
_FEW_ROWS = (8, 4, 2, 2)
_FEW_SCORES = (48 << 10, 32 << 10, 28 << 10, 16 << 10)
#: Role of what softmax gives.
_PROBABILITIES = "attention_probabilities"
#: What stays in integers in a ``.pte``, where XNNPACK resizes and multiplies activations in float and ExecuTorch takes
#: the argmax.
_EXECUTORCH = {**KERNELS, "RESIZE_BILINEAR": (), "BATCH_MATMUL": (), "ARG_MAX": ("int8",)}
#: Role of convolutions in norms, which leave as the mean: recipes for built-in kernels may have them in float.
_MEAN = "norm_variance"


@dataclass(frozen=True)
class Way:
    """How a target spends memory: what its budget counts, and what its runtime takes apart in the graph."""

    meaning: str
    setup: Setup
    #: Its integer kernels, as build_graph takes them.
    kernels: Kernels

    @property
    def float_resize(self) -> bool:
        """Whether bilinear resizing takes four times the bytes."""
        return not self.kernels["RESIZE_BILINEAR"]

    @property
    def gelu_indices(self) -> bool:
        """Whether GELU reads its table by indices of 32 bits, four times the bytes of what it reads."""
        return "GATHER" in self.kernels

    def bytes(self, found: Forecast) -> int:
        """What counts of ``found``."""
        if self.meaning == "plan":
            return found.arena + max(found.workspace, found.growing)
        return found.arena if self.meaning == "arena" else found.growth


def way_of(target: str, network: EdgeSegFormer) -> Way | None:
    """How ``target`` runs ``network``; None for a runtime whose memory does not follow from the order of operators.

    A network that multiplies and accumulates in integers alone is for runtimes without XNNPACK (``full``, ``npu``,
    ``portable``). There the arena counts, and GELU is LiteRT's table (segformer_edge.export.tflite.emitted).
    """
    if target == "tflm":
        return Way("arena", MICRO, KERNELS_MICRO)
    if target == "tflite":
        products = [site for _, site in named_sites(network) if site.role == _PROBABILITIES]
        factors = [conv for _, conv in named_weights(network) if conv.role != _MEAN]
        integer = all(site.active for site in products) and all(conv.active for conv in factors)
        return Way("arena", BUILT_IN, KERNELS_BUILT_IN) if integer else Way("growth", COMPILED, KERNELS)
    return Way("plan", EXECUTORCH, _EXECUTORCH) if target == "executorch" else None


def tiling_for(config: SegformerConfig, size: tuple[int, int], piece: int, way: Way, score_bytes: int) -> Tiling:
    """The coarsest tiling for an input of ``size`` in which no band's largest tensor takes more than ``piece`` bytes.

    Channels are cut only where rows are at their fewest and no delegate keeps buffers for every group. Logits are
    joined where they are smaller than the first feature map, which is dead by then.
    """
    height, width = size[0] // 4, size[1] // 4
    keys = (size[0] // STRIDE) * (size[1] // STRIDE)
    bands, queries, hidden, delegate = [], [], [], way.setup.delegate
    for stage, dim in enumerate(config.embed_dims):
        h, w = height >> stage, width >> stage
        row = dim * w * max(config.mlp_ratios[stage], 4)  # int8 hidden map, or the float norm
        rows = min(max(piece // row, _FEWEST_ROWS), h)
        bands.append(math.ceil(h / rows))
        score_row = config.num_heads[stage] * w * keys * score_bytes
        # XNNPACK writes the softmax over the scores; elsewhere several of their size are alive.
        allowed = 2 * piece if delegate else piece
        queries.append(math.ceil(rows / max(allowed // score_row, 1)))
        halo = (rows + 2) * row if rows < h else rows * row
        halo += 5 * rows * row if way.gelu_indices else 0
        hidden.append(1 if delegate else min(math.ceil(halo / (2 * piece)), 8))
    # The coarsest map's rows reach up to one source row, 8 rows here, beyond a band on either side.
    row = config.decoder_dim * width
    rows = max(piece // row - 16, 16) if delegate else max(2 * piece // row, _FEWEST_ROWS)
    if way.float_resize:
        rows //= 2
    rows = height if height * row <= piece else min(rows, height)
    groups = min(math.ceil((rows + 16) * row / piece), 2 if way.float_resize else 1 if delegate else 8)
    groups = 1 if rows >= height else groups
    return Tiling(
        tuple(bands), tuple(queries), tuple(hidden), math.ceil(height / rows), groups,
        recompute_norm=not delegate and piece * 8 <= config.embed_dims[0] * height * width,
        join_logits=way.setup.compiled and rows < height and config.num_classes <= config.embed_dims[0],
    )  # fmt: skip


def recomputing(config: SegformerConfig, size: tuple[int, int]) -> Tiling:
    """A fine tiling for ``size`` whose first feature map never waits: for a runtime that holds the image to the end."""
    heights = [size[0] // 4 >> stage for stage in range(4)]
    keys = (size[0] // STRIDE) * (size[1] // STRIDE)
    queries = []
    for stage, (rows, scores) in enumerate(zip(_FEW_ROWS, _FEW_SCORES, strict=True)):
        halo = 0 if stage else 4  # two blocks' Mix-FFNs, above and below
        queries.append(math.ceil((rows + halo) * (size[1] // 4 >> stage) * config.num_heads[stage] * keys / scores))
    return Tiling(
        tuple(math.ceil(height / rows) for height, rows in zip(heights, _FEW_ROWS, strict=True)),
        tuple(queries), (4, 2, 2, 2), head=math.ceil(heights[0] / 2), head_channels=4, recompute_norm=True,
        embedding=(4, 2, 2, 1), recompute_first=True,
    )  # fmt: skip


def held_bytes(config: SegformerConfig, size: tuple[int, int]) -> int:
    """Bytes of an int8 image of ``size`` and of the feature maps that wait for the head."""
    pixels = size[0] // 4 * (size[1] // 4)
    return 3 * size[0] * size[1] + sum(dim * pixels >> 2 * stage for stage, dim in enumerate(config.embed_dims))


def plan_for(target: str, network: EdgeSegFormer, size: tuple[int, int], budget: int) -> Plan | None:
    """The tiling of ``network`` for ``target`` and ``budget`` bytes; None where tiling does not lower its memory."""
    way = way_of(target, network)
    return None if way is None else Planner(network, way).plan(size, budget)


def _needed(plan: Plan) -> int:
    return plan.forecast


class Planner:
    """Tries tilings of one network; ``network`` has its encodings and is not tiled. It is left as it is."""

    def __init__(self, network: EdgeSegFormer, way: Way) -> None:
        self.network, self.way = copy.deepcopy(network).take_channels_last(), way
        set_mode(self.network, Mode.EXPORT)
        self._weights = {id(each): each for each in (*self.network.parameters(), *self.network.buffers())}
        widths = {site.dtype for _, site in named_sites(network) if site.role == _PROBABILITIES}
        self.score_bytes = max(_BYTES[width] if width in way.kernels["SOFTMAX"] else 4 for width in widths)

    def forecast(self, tiling: Tiling, size: tuple[int, int], *, packed: bool = False) -> Forecast:
        """What the network so tiled takes for an input of ``size``; ``packed`` with the order of tensors that its file
        has, which takes seconds to find.
        """
        tiled = copy.deepcopy(self.network, dict(self._weights)).tile(tiling)  # with the same weights
        program = record_image(tiled, size)
        graph = build_graph(program, self.way.kernels, image_channels_last=True)
        if self.way.setup.compiled:
            graph = with_short_lifetimes(graph)
            graph = with_packed_workspace(graph, self.way.setup) if packed else graph
        return forecast(graph, self.way.setup)

    def tilings(self, size: tuple[int, int]) -> Iterator[tuple[int, Tiling]]:
        """Pieces and their tilings, from untiled to the finest, each tiling once."""
        seen = Tiling()
        yield 2 * PIECES[0], seen
        for piece in PIECES:
            tiling = self.tiling(size, piece)
            if tiling != seen:
                seen = tiling
                yield piece, tiling

    def plan(self, size: tuple[int, int], budget: int) -> Plan:
        """The coarsest tiling within ``budget`` bytes, or the one that needs least and the size that would fit."""
        anew = None
        keeps_image = self.way.setup.holds_inputs and not self.way.setup.delegate
        if keeps_image and budget < held_bytes(self.network.config, size):  # nothing fits that keeps the maps, too
            anew = self._try(recomputing(self.network.config, size), size, budget)
            if anew.fits:
                return anew
        best = anew
        best_piece, worse, tried = PIECES[-4], 0, list[Plan]()
        for piece, tiling in self.tilings(size):
            plan = self._try(tiling, size, budget)
            tried.append(plan)
            if plan.fits:
                return plan
            if best is None or plan.forecast < best.forecast:
                best, best_piece, worse = plan, piece, 0
            else:
                worse += plan.forecast > best.forecast  # cutting what is not at the peak changes nothing yet
            if worse == PATIENCE:
                break
        assert best is not None
        if keeps_image and anew is None:
            best = min(best, self._try(recomputing(self.network.config, size), size, budget), key=_needed)
        elif self.way.setup.delegate and budget >= REACH * best.forecast:
            # A search only slowly takes bands apart again: what is coarser than the best is a start of its own.
            coarser = tried[max(tried.index(best) - 1, 0)]
            for start in (coarser, best):
                found = self._searched(start, size, budget)
                best = min(best, found, key=_needed)
                if best.fits:
                    break
        if best.fits:
            return best
        return replace(best, largest_size=self._largest(size, budget, best_piece))

    def _searched(self, start: Plan, size: tuple[int, int], budget: int) -> Plan:
        """The best plan around ``start``. Where tensors can be ordered, by what is alive, until that fits."""

        def attempt(tiling: Tiling) -> Plan:
            found = self.forecast(tiling, size)
            if found.bound <= budget:
                return self._try(tiling, size, budget, packed=True)
            return Plan(tiling, self.way.meaning, found.bound, False, found.blocked_by)

        if not self.way.setup.compiled:
            return search(start, lambda tiling: self._try(tiling, size, budget))
        found = search(attempt(start.tiling), attempt)
        return found if found.fits else self._try(found.tiling, size, budget, packed=True)

    def _try(self, tiling: Tiling, size: tuple[int, int], budget: int, *, packed: bool = False) -> Plan:
        found = self.forecast(tiling, size, packed=packed)
        needed = self.way.bytes(found)
        return Plan(tiling, self.way.meaning, needed, needed <= budget, found.blocked_by)

    def tiling(self, size: tuple[int, int], piece: int) -> Tiling:
        """The tiling whose pieces take ``piece`` bytes at most, as ``tiling_for`` makes it."""
        return tiling_for(self.network.config, size, piece, self.way, self.score_bytes)

    def _largest(self, size: tuple[int, int], budget: int, piece: int) -> tuple[int, int] | None:
        """The largest input in the proportions of ``size`` that fits, in steps of 32; None where none does.

        Tried with the piece that was best for ``size``, and with half of it.
        """
        steps = max(size) // STRIDE
        sides = [[max(1, round(side / STRIDE * i / steps)) * STRIDE for side in size] for i in range(1, steps)]
        low, high = 0, len(sides)
        while low < high:
            middle = (low + high) // 2
            smaller = sides[middle][0], sides[middle][1]
            if any(self._try(self.tiling(smaller, each), smaller, budget).fits for each in (piece, piece // 2)):
                low = middle + 1
            else:
                high = middle
        return (sides[low - 1][0], sides[low - 1][1]) if low else None
