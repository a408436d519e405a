"""Effective receptive fields against ones known in closed form, and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quantization.params import ActivationParams
from quantization.recipe import load_recipe
from quantization.sites import Mode, Site, named_sites, set_mode
from segformer_edge.errors import SegformerEdgeError, UsageError
from segformer_edge.prepare import Prepared, QuantizeOptions, prepare
from segformer_edge.progress import Progress
from segformer_edge.receptive_field import ReceptiveField, compare_precisions, outputs_of, receptive_fields

SIZE = (64, 96)


def convolution(kernel: int, stride: int, channels: int = 3) -> nn.Conv2d:
    """All weights 1: the gradient counts the paths from a pixel to the output."""
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, bias=False)
    nn.init.ones_(conv.weight)
    return conv.requires_grad_(False)


def field_of(gradient: list[float], centre: int = 0) -> ReceptiveField:
    """One row of pixels."""
    return ReceptiveField(np.array([gradient], float), (0, centre), 1)


@pytest.mark.parametrize(
    ("layers", "row", "stride"),
    [
        ([(7, 4)], [1] * 7, 4),  # the first patch embedding
        ([(3, 1), (3, 1)], [1, 2, 3, 2, 1], 1),
        ([(3, 2), (3, 2)], [1, 1, 2, 1, 2, 1, 1], 4),
        ([(7, 4), (3, 2)], [1, 1, 1, 1, 2, 2, 2, 1, 2, 2, 2, 1, 1, 1, 1], 8),
    ],
)
def test_of_convolutions_it_is_the_kernels_support(layers, row, stride):
    stack = nn.Sequential(*(convolution(*layer) for layer in layers))
    field = receptive_fields(lambda image: {"last": stack(image)}, [torch.rand(1, 3, 64, 96)])["last"]
    assert field.stride == stride and field.centre == (32, 48)
    expected = np.zeros(SIZE)
    reach = len(row) // 2
    expected[32 - reach : 33 + reach, 48 - reach : 49 + reach] = np.outer(row, row)
    assert field.gradient == pytest.approx(expected / expected.sum(), abs=1e-12)
    assert field.side(0.999999) == len(row)


def test_sides_are_those_of_the_smallest_square():
    field = field_of([0.05, 0.1, 0.2, 0.5, 0.1, 0.05], centre=3)
    assert field.shares == pytest.approx([0.5, 0.8, 0.95, 1.0])
    assert [field.side(share) for share in (0.4, 0.5, 0.51, 0.8, 0.9, 0.95)] == [1, 1, 3, 3, 5, 5]
    # At the border half of the square is outside; the side is never more than the image's.
    assert field.side(0.99) == 6
    assert field_of([0.5, 0.0, 0.0, 0.5]).side(0.9) == 4
    with pytest.raises(ValueError, match="between 0 and 1"):
        field.side(1.0)


@pytest.mark.parametrize(
    ("gradient", "centre"), [([0.5, 0.6], 0), ([0.5, 0.5], 2), ([float("nan"), 1.0], 0), ([0.0, 0.0], 0)]
)
def test_a_field_sums_to_one_around_a_pixel_of_its_own(gradient, centre):
    with pytest.raises(ValueError):
        field_of(gradient, centre)


def test_overlap_is_what_two_fields_share():
    left, right = field_of([0.5, 0.5, 0.0, 0.0]), field_of([0.0, 0.0, 0.5, 0.5])
    assert left.overlap(left) == 1.0 and left.overlap(right) == 0.0
    assert left.overlap(field_of([0.25, 0.25, 0.25, 0.25])) == pytest.approx(0.5)


def test_each_image_counts_the_same():
    """One image's gradient is a thousand times the other's, at another pixel."""
    factors = iter([1.0, 1000.0])

    def outputs(image: Tensor) -> dict[str, Tensor]:
        factor = next(factors)
        shifted = torch.roll(image, 1, dims=3) if factor > 1 else image
        return {"out": shifted * factor}

    field = receptive_fields(outputs, [torch.ones(1, 3, 1, 5)] * 2)["out"]
    assert field.gradient.tolist() == [[0.0, 0.5, 0.5, 0.0, 0.0]]


def test_gradients_pass_through_rounding_and_not_through_clipping():
    site = Site("image")
    site.dtype, site.params, site.mode = "int8", ActivationParams("int8", 0.01, 0), Mode.FAKE
    image = torch.full((1, 3, 8, 8), 0.123)
    image[0, :, 4, 3] = 5.0  # beyond 1.27
    conv = convolution(3, 1)
    field = receptive_fields(lambda x: {"out": conv(site(x))}, [image])["out"]
    expected = np.zeros((8, 8))
    expected[3:6, 3:6] = 1 / 8
    expected[4, 3] = 0.0
    assert field.gradient == pytest.approx(expected)


def test_an_output_that_sees_nothing_is_an_error():
    with pytest.raises(SegformerEdgeError, match="No pixel moves the output 'blind'"):
        receptive_fields(lambda image: {"blind": image * 0.0}, [torch.ones(1, 3, 4, 4)])
    with pytest.raises(UsageError, match="at least one image"):
        receptive_fields(lambda image: {"any": image}, [])


@pytest.fixture(scope="module")
def prepared(tiny_weights, calibration_folder, tmp_path_factory) -> Prepared:
    torch.set_num_threads(1)
    options = QuantizeOptions(
        tmp_path_factory.mktemp("erf"), str(tiny_weights), size=SIZE, calibration=calibration_folder
    )
    return prepare(options, load_recipe("mixed"), Progress())


@pytest.fixture(scope="module")
def batches(prepared: Prepared) -> list[Tensor]:
    return [torch.from_numpy(prepared.preprocessing(image)) for image in prepared.some_images(3)]


def test_gradients_are_finite_differences_of_the_original_network(prepared, batches):
    """The stages' and the head's, in float64, of the network before it was rewritten."""
    set_mode(prepared.network, Mode.FLOAT)
    fields = receptive_fields(outputs_of(prepared.network), batches[:1])
    original = prepared.loaded.model.double()
    try:
        image, step = batches[0].double(), 1e-5

        def magnitudes(image: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                features = original.features(image)
                maps = [*features, original.decode_head(features)]
            middles = [x[0, :, x.shape[2] // 2, x.shape[3] // 2].abs().sum() for x in maps]
            return dict(zip(fields, middles, strict=True))

        assert list(fields) == ["stage 1", "stage 2", "stage 3", "stage 4", "head"]
        pixels = [(32, 48), (30, 50), (10, 20), (63, 95)]
        for row, column in pixels:
            moved = dict.fromkeys(fields, 0.0)
            for colour in range(3):
                offset = torch.zeros_like(image)
                offset[0, colour, row, column] = step
                above, below = magnitudes(image + offset), magnitudes(image - offset)
                for name in fields:
                    moved[name] += abs((above[name] - below[name]).item()) / (2 * step)
            if (row, column) == pixels[0]:
                scale = {name: fields[name].gradient[row, column] / moved[name] for name in fields}
            for name, field in fields.items():
                assert field.gradient[row, column] == pytest.approx(moved[name] * scale[name], rel=1e-2, abs=1e-9)
    finally:
        original.float()


def test_float_and_int8_see_nearly_the_same(prepared, batches):
    found = compare_precisions(prepared.network, batches, Progress())
    assert list(found) == ["float", "int8"]
    assert all(site.mode is Mode.FAKE for _, site in named_sites(prepared.network))
    for name, field in found["float"].items():
        quantized = found["int8"][name]
        assert quantized.gradient.shape == field.gradient.shape == SIZE
        assert (quantized.centre, quantized.stride) == (field.centre, field.stride)
        assert 0.8 < field.overlap(quantized) < 0.99999
    strides = [field.stride for field in found["float"].values()]
    assert strides == [4, 8, 16, 32, 4]


def test_labels_have_no_gradient(prepared):
    from segformer_edge.rewrite.graph import EdgeSegFormer

    with pytest.raises(UsageError, match="logits"):
        outputs_of(EdgeSegFormer(prepared.loaded.model, "labels"))
