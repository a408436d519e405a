"""benchmarks/roofline.py: the bare products run in integers, and the bounds follow from what was measured."""

from __future__ import annotations

import json

import pytest

from segformer_edge.cli import EXIT_OK
from segformer_edge.errors import UsageError
from segformer_edge.memory.profiling import read_file
from segformer_edge.timing.profiling import profile_operators


@pytest.mark.parametrize("form", ["tflite", "onnx", "openvino", "executorch"])
def test_the_bare_product_is_integer_convolutions(form, tmp_path):
    """All of them; OpenVINO joins the last with the conversion to float."""
    from gemm import DEPTH, write_gemm

    found = profile_operators(write_gemm(form, 16, tmp_path), runs=2)
    precisions = [op.precision for op in found.operators if "conv" in op.type.lower() and op.type != "Convert"]
    assert precisions[:-1] == ["int8"] * (DEPTH - 1) and precisions[-1] in ("int8", "mixed")


def test_bounds_of_every_runtime(b1_run, capsys, tmp_path):
    import roofline

    files = [b1_run.file(target) for target in ("tflite", "executorch", "onnx", "openvino")]
    page = tmp_path / "page.md"
    arguments = [*map(str, files), "--side", "16", "--seconds", "0", "--json", "--page", str(page)]
    assert roofline.main(arguments) == EXIT_OK
    rows = json.loads(capsys.readouterr().out)["files"]
    for row, file in zip(rows, files, strict=True):
        assert row["moved_bytes"] > read_file(file).graph.constant_bytes
        assert min(row["share"], *row["least_ms"]) > 0
        assert row["least_ms"][0] == pytest.approx(row["share"] * row["ms"])
    assert len({row["macs"] for row in rows}) == 1
    assert all(f"{row['ms']:.1f}" in page.read_text() for row in rows)


def test_other_networks_are_refused(tiny_run):
    import roofline

    with pytest.raises(UsageError, match="there are products for"):
        roofline.main([str(tiny_run.file("tflite"))])
