"""The float ``.tflite`` -> ai-edge-quantizer's recipe ``static_wi8_ai8``, calibrated (its README)."""

from __future__ import annotations

from pathlib import Path

from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

from defaults.job import Job


def build(job: Job, out: Path) -> Path:
    """Write the int8 ``.tflite`` to ``out``; input and output become int8 too, as the recipe has it."""
    signatures = Interpreter(str(job.float_file)).get_signature_list()
    (name, signature), *_ = signatures.items()
    data = [{signature["inputs"][0]: batch.numpy()} for batch in job.batches]
    static = quantizer.Quantizer(str(job.float_file))
    static.load_quantization_recipe(recipe.static_wi8_ai8())
    calibrated = static.calibrate({name: data}, num_threads=1)
    static.quantize(calibrated).export_model(str(out))
    return out
