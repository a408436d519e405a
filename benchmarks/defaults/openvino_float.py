"""transformers -> ``openvino.convert_model`` -> ``save_model``, which stores weights as float16 by default."""

from __future__ import annotations

from pathlib import Path

import openvino

from defaults.job import Job


def convert(job: Job) -> openvino.Model:
    """The model in OpenVINO's form, its input of a fixed size."""
    return openvino.convert_model(job.model, example_input=job.batches[0], input=[tuple(job.batches[0].shape)])


def build(job: Job, out: Path) -> Path:
    """Write the float ``.xml`` and ``.bin`` to ``out``: float32 image in, float32 logits out."""
    openvino.save_model(convert(job), str(out))
    return out
