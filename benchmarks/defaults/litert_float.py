"""transformers -> litert-torch, float32 (README of litert-torch)."""

from __future__ import annotations

from pathlib import Path

import litert_torch

from defaults.job import Job


def build(job: Job, out: Path) -> Path:
    """Write the float ``.tflite`` to ``out``: float32 NCHW image in, float32 NCHW logits out."""
    litert_torch.convert(job.model, job.example).export(str(out))
    return out
