"""Exports one target in a process of its own: targets run side by side, and a crashing backend takes only itself down.

``python -m segformer_edge.export.worker JOB.json`` reads a :class:`Job` and writes its result file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from quantization.encodings import apply_encodings, load_encodings
from quantization.sites import keep_widths
from segformer_edge.export.exporter import Exported, Exporter, Plan, PlanningExporter
from segformer_edge.export.planner import plan_for
from segformer_edge.jsonfile import write_json
from segformer_edge.model.config import SegformerConfig
from segformer_edge.model.segformer import SegFormer
from segformer_edge.report.npu import npu_from_json
from segformer_edge.report.schema import Memory, Ops
from segformer_edge.rewrite.cache_blocks import cache_blocks
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling
from segformer_edge.runtime.metadata import InputSpec, OutputSpec


@dataclass(frozen=True)
class Job:
    """One export; all paths are absolute."""

    exporter: str
    weights: str
    config: dict[str, Any]
    encodings: str
    #: Widths the target has kernels for.
    widths: tuple[str, ...]
    size: tuple[int, int]
    output: str
    stem: str
    result: str
    #: Name of the target, and the bytes that it may take; None without a budget.
    target: str = ""
    budget: int | None = None
    #: What to cut into blocks that stay in the cache where no budget asks for a tiling.
    cache_blocks: tuple[str, ...] = ()


def save_model(model: SegFormer, path: Path) -> dict[str, Any]:
    """Write the float weights for the workers; returns the config to put into their jobs."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return asdict(model.config)


def load_network(job: Job) -> EdgeSegFormer:
    """The rewritten network with the job's encodings."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in job.config.items()}
    model = SegFormer(SegformerConfig(**fields))
    model.load_state_dict(load_file(job.weights))
    network = EdgeSegFormer(model.eval(), job.output)
    apply_encodings(network, load_encodings(Path(job.encodings)))
    keep_widths(network, job.widths)
    return network


def exported_from_json(value: dict[str, Any]) -> Exported:
    """The inverse of ``asdict`` after a trip through JSON."""
    tensors = {name: {**value[name], "shape": tuple(value[name]["shape"])} for name in ("input", "output")}
    return Exported(
        files=tuple(value["files"]),
        input=InputSpec(**tensors["input"]),
        output=OutputSpec(**tensors["output"]),
        ops=Ops(**{**value["ops"], "fallback": tuple(value["ops"]["fallback"])}),
        tools=value["tools"],
        memory=None if value["memory"] is None else Memory(**value["memory"]),
        plan=None if value["plan"] is None else _plan(value["plan"]),
        seconds=value["seconds"],
        npu=None if value["npu"] is None else npu_from_json(value["npu"]),
    )


def _plan(value: dict[str, Any]) -> Plan:
    size = value["largest_size"]
    tiling = Tiling.from_json(value["tiling"])
    return Plan(**{**value, "tiling": tiling, "largest_size": None if size is None else (size[0], size[1])})


def exporter_of(name: str) -> Exporter:
    """The Exporter called ``module:class``, or ``module:class:argument``."""
    module, kind, *arguments = name.split(":")
    exporter: Exporter = getattr(import_module(module), kind)(*arguments)
    return exporter


def _planned(exporter: Exporter, job: Job, network: EdgeSegFormer) -> Plan | None:
    """How to keep to the job's budget: an exporter whose compiler plans memory knows best."""
    if job.budget is None:
        return None
    if isinstance(exporter, PlanningExporter):
        return exporter.plan(network, job.size, job.budget)
    return plan_for(job.target, network, job.size, job.budget)


def run_job(job: Job) -> None:
    """Export and write the result file: ``{"exported": ...}`` or ``{"error": ...}``."""
    start = time.perf_counter()
    try:
        exporter = exporter_of(job.exporter)
        network = load_network(job)
        plan = _planned(exporter, job, network)
        if plan is not None:
            network.tile(plan.tiling)
        elif job.cache_blocks:
            network.tile(cache_blocks(network.config, job.size, job.cache_blocks))
        exported = exporter.export(network, job.size, Path(job.stem))
        exported = replace(exported, plan=plan, seconds=time.perf_counter() - start)
    except Exception as error:  # backends raise anything; the report says what
        traceback.print_exc()
        text = str(error).strip() or "no message"
        write_json(job.result, {"error": f"{type(error).__name__}: {text[:2000]}"})
    else:
        write_json(job.result, {"exported": asdict(exported)})


def _end_with_parent(parent: int) -> None:
    """Watch the parent process: one that was killed cannot take its workers and their compilers down itself."""
    while os.getppid() == parent:
        time.sleep(1.0)
    if os.getpgrp() == os.getpid():  # a group of its own, as the pool starts it
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(path: str) -> None:
    """Run the job in the file ``path`` on one thread."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    value = json.loads(Path(path).read_text(encoding="utf-8"))
    run_job(Job(**{**value, **{name: tuple(value[name]) for name in ("size", "widths", "cache_blocks")}}))


if __name__ == "__main__":
    main(sys.argv[1])
