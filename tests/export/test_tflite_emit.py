"""Small networks through the emitter, run by LiteRT, against torch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quantization.calibration import calibrate
from quantization.recipe import Recipe
from quantization.sites import Mode, QuantConv2d, Site, named_sites, named_weights, set_mode
from segformer_edge.errors import ArtifactError
from segformer_edge.export.tflite_emit import KERNELS_BUILT_IN, build_graph
from segformer_edge.export.tflite_graph import EmittedGraph
from segformer_edge.export.tflite_write import tflite_bytes


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Sites(nn.Module):
    """``inside`` between a site at the image and one at the output."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.image, self.inside, self.result = Site("image"), inside, Site("result")

    def forward(self, x: Tensor) -> Tensor:
        return self.result(self.inside(self.image(x)))


class Function(nn.Module):
    """A function of a tensor as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def conv(*arguments, **options) -> QuantConv2d:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return QuantConv2d("conv", nn.Conv2d(*arguments, **options))


def images(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def quantized(module: nn.Module, shape: tuple[int, ...], width: str = "int8") -> nn.Module:
    """``module`` between sites, all of one ``width``, calibrated."""
    network = Sites(module).eval()
    roles = {site.role for _, site in named_sites(network)}
    weights = {layer.role: "float" if width == "float" else "int8" for _, layer in named_weights(network)}
    recipe = Recipe("test", sites=dict.fromkeys(roles, width), weights=weights)
    calibrate(network, [images(shape)], recipe)
    return network


def graph_of(network: nn.Module, shape: tuple[int, ...], **options) -> EmittedGraph:
    set_mode(network, Mode.EXPORT)
    with torch.no_grad():
        return build_graph(torch.export.export(network, (torch.zeros(shape),)), KERNELS_BUILT_IN, **options)


def run(graph: EmittedGraph, batch: Tensor, kernels: str = "AUTO") -> np.ndarray:
    """What LiteRT makes of ``batch`` in the file's own layout; real numbers in and out."""
    interpreter = Interpreter(
        model_content=tflite_bytes(graph), experimental_op_resolver_type=OpResolverType[kernels], num_threads=1
    )
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    x, (scale, zero) = batch.numpy(), taken["quantization"]
    if scale:
        limits = np.iinfo(taken["dtype"])
        x = np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(taken["dtype"])
    interpreter.set_tensor(taken["index"], x)
    interpreter.invoke()
    y, (scale, zero) = interpreter.get_tensor(given["index"]), given["quantization"]
    return (y.astype(np.float64) - zero) * scale if scale else y


def check(network: nn.Module, shape: tuple[int, ...], steps: float = 1.01, kernels: str = "AUTO") -> EmittedGraph:
    """Compare on channels-last images; integers may differ by a step where torch's float lies between two."""
    graph, batch = graph_of(network, shape), images(shape)
    set_mode(network, Mode.FAKE)
    with torch.no_grad():
        expected = network(batch).permute(0, 2, 3, 1).numpy()
    found = run(graph, batch.permute(0, 2, 3, 1).contiguous(), kernels)
    params = network.result.params
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (steps * params.scale if params else 1e-4 * max(1, np.abs(expected).max()))
    assert np.ptp(expected) > 0.1
    return graph


def codes(graph: EmittedGraph) -> Counter[str]:
    return Counter(op.code for op in graph.operators)


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.integers(1, 5), stride=st.integers(1, 4), padding=st.integers(0, 3),
    height=st.integers(4, 11), width=st.integers(4, 11),
    depthwise=st.booleans(), dtype=st.sampled_from(["int8", "int16", "float"]),
)  # fmt: skip
def test_convolutions(kernel, stride, padding, height, width, depthwise, dtype):
    assume(padding < kernel <= min(height, width) + 2 * padding)
    layer = conv(4, 8 if depthwise else 6, kernel, stride=stride, padding=padding, groups=4 if depthwise else 1)
    graph = check(quantized(layer, (1, 4, height, width), dtype), (1, 4, height, width))
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    assert set(codes(graph)) <= {code, "PAD"}
    assert {tensor.dtype for tensor in graph.tensors() if not tensor.constant} == {
        "float32" if dtype == "float" else dtype
    }


def test_padding_of_one_axis_alone():
    check(quantized(conv(4, 4, 3, padding=(0, 1)), (1, 4, 6, 6)), (1, 4, 6, 6))


class Norm(nn.Module):
    """Broadcasts one channel over many, and constants over pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = conv(6, 1, 1)
        with torch.no_grad():
            self.mean.weight.fill_(1 / 6)
            self.mean.bias.fill_(1e-3)
        self.weight, self.bias = nn.Parameter(torch.rand(1, 6, 1, 1) + 0.5), nn.Parameter(torch.rand(1, 6, 1, 1))
        self.square, self.root, self.product, self.scaled = (Site(r) for r in ("square", "root", "product", "scaled"))
        self.operand, self.shift = Site("operand"), Site("shift")

    def forward(self, x: Tensor) -> Tensor:
        x = self.product(x * self.root(torch.rsqrt(self.mean(self.square(x * x)))))
        return self.scaled(x * self.operand(self.weight)) + self.shift(self.bias)


@pytest.mark.parametrize(("dtype", "steps"), [("float", 0), ("int16", 80)])
def test_norms(dtype, steps):
    graph = check(quantized(Norm(), (1, 6, 4, 5), dtype), (1, 6, 4, 5), steps)
    kinds = {tensor.dtype for tensor in graph.tensors()} - {"int64", "int32"}
    assert kinds == ({"float32"} if dtype == "float" else {"int16", "int8"})  # the mean's weight is int8


class Attention(nn.Module):
    """Heads as views of channels; ``dtype`` of the products is that of their sites."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList(conv(8, 8, 1) for _ in range(3))
        self.scores, self.weighted = Site("scores"), Site("weighted")
        self.probabilities = Site("probabilities", fixed=(1 / 256, -128))

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, height, width = x.shape

        def split(y: Tensor) -> Tensor:
            y = y.permute(0, 2, 3, 1).reshape(batch, height * width, self.heads, dim // self.heads)
            return y.permute(0, 2, 1, 3).reshape(batch * self.heads, height * width, dim // self.heads)

        q, k, v = (split(layer(x)) for layer in self.qkv)
        y = self.probabilities(self.scores(torch.bmm(q, k.transpose(1, 2))).softmax(-1))
        y = self.weighted(torch.bmm(y, v)).reshape(batch, self.heads, height * width, dim // self.heads)
        return y.permute(0, 2, 1, 3).reshape(batch, height, width, dim).permute(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", ["float", "int8", "int16"])
@pytest.mark.parametrize("heads", [1, 4])
def test_attention(heads, dtype):
    graph = check(quantized(Attention(heads), (1, 8, 4, 6), dtype), (1, 8, 4, 6), {"int16": 400}.get(dtype, 4))
    assert codes(graph)["TRANSPOSE"] == (0 if heads == 1 else 4)
    assert codes(graph)["DEQUANTIZE"] == codes(graph)["QUANTIZE"] == 0


class Bands(nn.Module):
    """A stem and a depthwise convolution, by ``count`` bands with a halo, cut and joined; 1 is the whole."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.stem, self.depthwise = conv(3, 8, 1), conv(8, 8, 3, padding=1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        height, step = x.shape[2], x.shape[2] // self.count
        parts = []
        for start in range(0, height, step):
            first, last = max(start - 1, 0), min(start + step + 1, height)
            y = self.stem.output(self.stem(x[:, :, first:last]))
            y = F.pad(y, (1, 1, int(start == 0), int(start + step == height)))
            y = self.depthwise(self.stem.output(y), padding=(0, 0))
            parts.append(F.gelu(y))
        return torch.cat(parts, dim=2)


@pytest.mark.parametrize("kernels", ["AUTO", "BUILTIN_REF"])
def test_bands_have_the_bits_of_the_whole(kernels):
    shape = (1, 3, 12, 10)
    batch = images(shape).permute(0, 2, 3, 1).contiguous()
    whole = quantized(Bands(1), shape)
    graph = check(whole, shape, steps=2.01, kernels=kernels)
    expected, size = run(graph, batch, kernels), len(tflite_bytes(graph))
    for count in (2, 6):
        network = quantized(Bands(count), shape)
        for (_, site), (_, other) in zip(named_sites(network), named_sites(whole), strict=True):
            site.params = other.params
        graph = graph_of(network, shape)
        assert np.array_equal(run(graph, batch, kernels), expected)
        assert codes(graph)["QUANTIZE"] == codes(graph)["DEQUANTIZE"] == 0
        assert len([tensor for tensor in graph.tensors() if tensor.dtype == "int8" and tensor.constant]) == 2
        assert len(tflite_bytes(graph)) < size + 300 * len(graph.operators)


def test_bands_run_one_after_the_other():
    """The program's order is the file's: a band is through before the next begins."""
    order = [op.code for op in graph_of(quantized(Bands(3), (1, 3, 12, 10)), (1, 3, 12, 10)).operators]
    assert order == ["SLICE", "CONV_2D", "PAD", "DEPTHWISE_CONV_2D", "GELU"] * 3 + ["CONCATENATION"]


def test_blocks_of_an_image():
    """Space-to-depth, written for channels first or last, is one operator for the one, and right for both."""
    first = quantized(nn.Sequential(nn.PixelUnshuffle(4), conv(48, 5, 2)), (1, 3, 8, 12))
    check(first, (1, 3, 8, 12))

    def blocks(x: Tensor) -> Tensor:
        return x.reshape(1, 2, 4, 3, 12).permute(0, 1, 3, 2, 4).reshape(1, 2, 3, 48).permute(0, 3, 1, 2)

    shape = (1, 8, 12, 3)
    network = quantized(nn.Sequential(Function(blocks), conv(48, 5, 2)), shape)
    graph = graph_of(network, shape, image_channels_last=True)
    assert codes(graph) == {"SPACE_TO_DEPTH": 1, "CONV_2D": 1}
    set_mode(network, Mode.FAKE)
    with torch.no_grad():
        expected = network(images(shape)).permute(0, 2, 3, 1).numpy()
    assert np.abs(run(graph, images(shape)) - expected).max() <= 1.01 * network.result.params.scale


@pytest.mark.parametrize("dtype", ["float", "int8"])
def test_upsampling_and_a_fused_relu(dtype):
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = conv(4, 6, 3, stride=2, padding=1), conv(4, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            up = F.interpolate(self.small(x), size=x.shape[2:], mode="bilinear", align_corners=False)
            return F.relu(self.large(x) + self.small.output(up))

    graph = check(quantized(Head(), (1, 4, 8, 6), dtype), (1, 4, 8, 6), steps=2.01)
    assert "RELU" not in codes(graph) and codes(graph)["RESIZE_BILINEAR"] == 1
    assert codes(graph)["DEQUANTIZE"] == 0


def test_a_view_keeps_integers_and_quantizing_again_is_nothing():
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            left, right = (self.conv.output(part) for part in y.split(2, dim=1))
            return self.conv.output(torch.cat([right, left], dim=1))

    network = quantized(Again(), (1, 4, 4, 4))
    network.result.params = network.inside.conv.output.params
    assert codes(check(network, (1, 4, 4, 4))) == {"CONV_2D": 1, "SLICE": 2, "CONCATENATION": 1}


def test_a_change_of_width_is_explicit():
    class Widths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = Site("wide")

        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(self.wide(x) * 2.0)

    network = Sites(Widths()).eval()
    recipe = Recipe("test", sites={"image": "int8", "wide": "int16", "result": "int8"})
    calibrate(network, [images((1, 3, 4, 4))], recipe)
    # int8 -> int16; the product has no site, so it and GELU compute in float.
    assert codes(check(network, (1, 3, 4, 4))) == {"QUANTIZE": 2, "DEQUANTIZE": 1, "MUL": 1, "GELU": 1}


def test_labels_are_the_largest_logits():
    def labels(x: Tensor) -> Tensor:
        return x.argmax(dim=1).to(torch.uint8)

    graph = graph_of(Function(labels), (1, 5, 4, 6))
    batch = images((1, 5, 4, 6))
    assert np.array_equal(run(graph, batch.permute(0, 2, 3, 1).contiguous()), labels(batch).numpy())
    assert graph.outputs[0].dtype == "uint8"


def test_what_nothing_reads_is_left_out():
    class Waste(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.exp(x)  # no counterpart, and not needed
            _, kept = x.split(2, dim=1)
            return kept * 2.0

    assert codes(graph_of(Waste(), (1, 4, 2, 2))) == {"SLICE": 1, "MUL": 1}


def test_the_same_network_gives_the_same_bytes():
    contents = {tflite_bytes(graph_of(quantized(Attention(4), (1, 8, 4, 4)), (1, 8, 4, 4))) for _ in range(2)}
    assert len(contents) == 1


def test_an_operator_without_counterpart_is_named():
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.erfinv(x)

    with pytest.raises(ArtifactError, match=r"aten\.erfinv.*inside.*erfinv"):
        graph_of(Sites(Inner()), (1, 3, 4, 4))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x[:, :, ::2], "steps"),
        (lambda x: F.pad(x, (1, 1), value=3.0), "zeros"),
        (lambda x: torch.add(x, x, alpha=2), "alpha"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), "align_corners"),
        (nn.Conv2d(4, 4, 3, dilation=2), "dilated"),
        (nn.Conv2d(4, 4, 3, groups=2), "grouped"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(function, said):
    with pytest.raises(ArtifactError, match=said):
        graph_of(Function(function), (1, 4, 6, 6))


def test_an_int16_zero_point_is_refused():
    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ops, arguments = torch.ops.quantized_decomposed, (0.1, 5, -32768, 32767, torch.int16)
            return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *arguments), *arguments)

    with pytest.raises(ArtifactError, match="zero point"):
        graph_of(Shifted(), (1, 4, 2, 2))
