"""Recipe ``int8_attention``: both products of every block in int8 inside the delegate, and the reference's labels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from segformer_edge.data.metrics import agreement
from segformer_edge.export.targets import CPU_TARGETS
from segformer_edge.runtime import Segmenter
from segformer_edge.timing.profiling import profile_operators

#: Two products in each of four blocks.
PRODUCTS = 8
SIZE = (64, 96)


@pytest.fixture(scope="module")
def attention_run(run_quantize, tiny_weights):
    return run_quantize(tiny_weights, SIZE, recipe="int8_attention")


def test_every_target_takes_the_recipe(attention_run):
    assert [entry.status for entry in attention_run.report.targets] == ["ok"] * len(CPU_TARGETS)
    for entry in attention_run.report.targets:  # random weights have near ties
        assert entry.agreement_int8 > 0.95, entry.target


def test_the_logits_are_the_references(attention_run):
    segmenter = Segmenter.load(attention_run.file("tflite"))
    for image in attention_run.images:
        reference = attention_run.quantized.logits(image)
        error = np.sqrt(np.mean((segmenter.logits(image) - reference) ** 2))
        assert error < 0.08 * reference.std()


def test_both_products_are_int8_and_the_delegate_takes_everything(attention_run):
    operators = profile_operators(attention_run.file("tflite"), runs=2).operators
    assert {op.delegate for op in operators} == {"XNNPACK 0"}
    products = [op for op in operators if op.type == "BATCH_MATMUL"]
    assert len(products) == PRODUCTS and all(op.precision == "int8" and "QS8" in op.kernel for op in products)
    assert {op.precision for op in operators if op.type == "SOFTMAX"} == {"float"}


def test_keys_and_values_alone_have_no_zero_point(attention_run):
    sites = attention_run.encodings["activations"].values()
    symmetric = [site for site in sites if site.get("symmetric")]
    assert Counter(site["role"] for site in symmetric) == {"key": PRODUCTS // 2, "value": PRODUCTS // 2}
    assert all(site["zero_point"] == 0 for site in symmetric)


@pytest.mark.parametrize(
    ("target", "product", "precision"),
    [("executorch", "BatchMatrixMultiply", "float"), ("onnx", "QLinearMatMul", "int8")],
)
def test_products_of_other_runtimes(attention_run, target, product, precision):
    """ExecuTorch gives its delegate no int8 product; OpenVINO hides both in what it fuses."""
    operators = profile_operators(attention_run.file(target), runs=2).operators
    assert [op.precision for op in operators if op.type == product] == [precision] * PRODUCTS
    assert len({op.delegate for op in operators}) == 1


def test_label_maps_are_the_argmax_of_the_logits(attention_run, run_quantize, tiny_weights):
    run = run_quantize(tiny_weights, SIZE, targets="tflite", recipe="int8_attention", output="labels")
    assert {op.delegate for op in profile_operators(run.file("tflite"), runs=2).operators} == {"XNNPACK 0"}
    labels, logits = Segmenter.load(run.file("tflite")), Segmenter.load(attention_run.file("tflite"))
    for image in run.images:
        batch = labels.prepare(image)
        assert np.array_equal(labels.infer(batch).squeeze(), logits.infer(batch).argmax(axis=-1).squeeze())
        assert agreement(labels(image), run.quantized(image)) > 0.9
