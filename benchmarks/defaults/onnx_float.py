"""transformers -> torch.onnx, the exporter on torch.export (PyTorch's ONNX page)."""

from __future__ import annotations

from pathlib import Path

import torch

from defaults.job import Job


def build(job: Job, out: Path) -> Path:
    """Write the float ``.onnx`` to ``out``: float32 image in, float32 logits out."""
    torch.onnx.export(job.model, job.example, str(out), dynamo=True, external_data=False)
    return out
