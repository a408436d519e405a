"""Recipe ``full``: no float tensor in the ``.tflite``, the encodings' parameters in it, and the reference's answers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from quantization.encodings import apply_encodings
from quantization.recipe import load_recipe
from quantization.sites import named_sites
from segformer_edge.export.targets import CPU_TARGETS
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.runtime import Segmenter


@pytest.fixture(scope="module")
def interpreter(full_run):
    return Interpreter(str(full_run.file("tflite")), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)


def test_every_target_takes_the_recipe(full_run):
    assert [entry.status for entry in full_run.report.targets] == ["ok"] * len(CPU_TARGETS)
    for entry in full_run.report.targets:
        assert entry.agreement_int8 > 0.97, entry.target


def logit_error(run, image: np.ndarray) -> float:
    """Distance of the file's logits from the quantized reference's, as a share of how much these vary.

    Unlike a share of equal labels it does not hang on near ties, of which random weights have many.
    """
    reference = run.quantized.logits(image)
    return float(
        np.sqrt(np.mean((Segmenter.load(run.file("tflite")).logits(image) - reference) ** 2)) / reference.std()
    )


def test_the_logits_are_the_references(full_run):
    assert max(logit_error(full_run, image) for image in full_run.images) < 0.08


def test_no_tensor_is_float(interpreter):
    kinds = Counter(details["dtype"] for details in interpreter.get_tensor_details())
    assert np.float32 not in kinds
    assert kinds[np.int8] and kinds[np.int16]


def test_every_operator_has_one_width(interpreter):
    tensors = {details["index"]: details["dtype"] for details in interpreter.get_tensor_details()}
    for op in interpreter._get_ops_details():
        activations = [tensors[i] for i in op["inputs"] if i >= 0 and tensors[i] in (np.int8, np.int16)]
        if op["op_name"] != "QUANTIZE":
            assert activations[0] == tensors[op["outputs"][0]], op["op_name"]


def test_the_parameters_are_the_encodings(full_run, interpreter):
    found = {
        (details["dtype"].__name__, np.float32(details["quantization"][0]), details["quantization"][1])
        for details in interpreter.get_tensor_details()
        if len(details["quantization_parameters"]["scales"]) == 1
    }
    for name, site in full_run.encodings["activations"].items():
        assert (site["dtype"], np.float32(site["scale"]), site["zero_point"]) in found, name


def test_reference_kernels_and_optimised_kernels_agree(full_run, interpreter):
    """Within some steps of the int8 logits: each operator of the one may round differently than that of the other."""
    optimised = Interpreter(str(full_run.file("tflite")))
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = taken["quantization"]
    for image in full_run.images:
        real = full_run.quantized.preprocessing(image).transpose(0, 2, 3, 1)
        answers = []
        for each in (interpreter, optimised):
            each.allocate_tensors()
            each.set_tensor(taken["index"], np.clip(np.rint(real / scale) + zero_point, -128, 127).astype(np.int8))
            each.invoke()
            answers.append(each.get_tensor(given["index"]).astype(int))
        difference = np.abs(answers[0] - answers[1])
        assert difference.mean() < 2 and difference.max() < 16 < np.ptp(answers[0])


def test_integer_sites_cover_the_network(full_run):
    """Sites that the recipe leaves out only stand where a tensor is of the right width already."""
    network = EdgeSegFormer(load_checkpoint(str(full_run.weights)).model)
    apply_encodings(network, full_run.encodings)
    assert {site.role for _, site in named_sites(network) if not site.active} == {"attention_query", "attention_key"}


@pytest.mark.parametrize("role", ["gelu", "attention_scores", "residual"])
def test_one_site_class_may_return_to_float(run_quantize, tiny_weights, tmp_path, role):
    """As a user changes one line of the recipe; the rest stays integer."""
    recipe = load_recipe("full")
    changed = tmp_path / "changed.toml"
    tables = {"sites": {**recipe.sites, role: "float"}, "weights": recipe.weights, "observers": recipe.observers}
    lines = [
        f"[{table}]\n" + "".join(f'{k} = "{v}"\n' for k, v in entries.items()) for table, entries in tables.items()
    ]
    changed.write_text("\n".join(lines))
    run = run_quantize(tiny_weights, (64, 64), targets="tflite", recipe=str(changed))
    report = run.report_of("tflite")
    assert report.status == "ok"
    assert max(logit_error(run, image) for image in run.images) < 0.08
    assert 0 < report.ops.float < report.ops.int8


def test_labels_are_taken_without_float(run_quantize, tiny_weights):
    run = run_quantize(tiny_weights, (64, 64), targets="tflite", recipe="full", output="labels")
    report = run.report_of("tflite")
    assert report.status == "ok" and report.ops.float == 0
    kinds = {details["dtype"] for details in Interpreter(str(run.file("tflite"))).get_tensor_details()}
    assert np.float32 not in kinds and np.uint8 in kinds
