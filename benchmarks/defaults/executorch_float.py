"""transformers -> torch.export -> XNNPACK's partitioner, float32 (ExecuTorch's XNNPACK page)."""

from __future__ import annotations

from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

from defaults.job import Job


def build(job: Job, out: Path) -> Path:
    """Write the float ``.pte`` to ``out``: float32 image in, float32 logits out."""
    return lower(job.model, job, out)


def lower(module: torch.nn.Module, job: Job, out: Path) -> Path:
    """Lower ``module`` to XNNPACK and write it to ``out``."""
    program = torch.export.export(module, job.example)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    with out.open("wb") as file:
        lowered.to_executorch().write_to_file(file)
    return out
