"""transformers -> PT2E with XNNPACKQuantizer, symmetric, weights per channel -> XNNPACK (ExecuTorch's XNNPACK page)."""

from __future__ import annotations

from pathlib import Path

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from defaults.executorch_float import lower
from defaults.job import Job


def build(job: Job, out: Path) -> Path:
    """Write the int8 ``.pte`` to ``out``: float32 image in, float32 logits out."""
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(job.model, job.example).module(), quantizer)
    for batch in job.batches:
        prepared(batch)
    return lower(convert_pt2e(prepared), job, out)
