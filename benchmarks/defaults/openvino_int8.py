"""transformers -> ``openvino.convert_model`` -> NNCF's post-training quantization for transformers (its own page)."""

from __future__ import annotations

from pathlib import Path

import nncf
import openvino

from defaults.job import Job
from defaults.openvino_float import convert


def build(job: Job, out: Path) -> Path:
    """Write the int8 ``.xml`` and ``.bin`` to ``out``: float32 image in, float32 logits out."""
    images = nncf.Dataset([batch.numpy() for batch in job.batches])
    quantized = nncf.quantize(convert(job), images, model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(quantized, str(out))
    return out
