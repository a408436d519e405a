"""A report with one target of each kind: ok, below the gate, over the budget, failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segformer_edge.report.budget import Budget
from segformer_edge.report.gates import Gates
from segformer_edge.report.profile import MemoryTimeline, OperatorCost, OperatorTimes, TargetProfile
from segformer_edge.report.reproduction import Reproduction
from segformer_edge.report.schema import Latency, Memory, Ops, Precision, Reference, Report, TargetReport

FP32 = {"road": 0.9512, "sign & post": 0.7533, "never": None}
INT8 = {"road": 0.9511, "sign & post": 0.7529, "never": None}
PRECISION = Precision({"int8": {"fc1": 8, "norm": 16}, "float": {"residual": 24}}, {"int8": {"fc1": 8}})
SLOW = OperatorCost("CONV_2D", "stage <0>", "GEMM", True, "int8", 40.5, 0.29)
PROFILE = TargetProfile(
    OperatorTimes(
        "LiteRT", "host x86_64", 1, 5, 141.0, 354,
        (replace(SLOW, name="", count=53),), (SLOW, OperatorCost("SOFTMAX", "s", "", False, None, None, None)), 1.25,
    ),
    MemoryTimeline((1024, 4096, 2048), 4096, "CONV_2D 1", None, "the file"),
    "Other programs took the CPU <meanwhile>.",
)  # fmt: skip
MADE = Reproduction(
    "python -m segformer_edge.quantize --out 'my out'", {"size": "(384, 512)"}, {"python": "3.11.7"},
    {"system": "Linux"}, {"weights": "ab" * 32}, {"model.tflite": "cd" * 32},
)  # fmt: skip


@pytest.fixture
def report() -> Report:
    tflite = TargetReport(
        target="tflite", status="ok", files=("model.tflite", "model.tflite.json"), bytes=4_000_000,
        miou=0.7012, miou_drop=0.0021, agreement_fp32=0.991, agreement_int8=0.99996,
        latency_ms=Latency(141.2, 139.0, 1, 20, "host x86_64"),
        memory=Memory(11_000_000, None, 4_000_000, "planned", "host x86_64"),
        ops=Ops(354, 120, 234, 354, ("GELU",)), per_class_iou={"road": 0.9476, "sign & post": 0.7412, "never": None},
        agreement_checked=0.99989, profile=PROFILE,
    )  # fmt: skip
    below = replace(
        tflite, target="openvino", status="below_accuracy", files=("model.xml", "model.bin"), per_class_iou=INT8,
        miou_drop=0.0123, error="mIoU drops by 0.0123",
    )  # fmt: skip
    failed = TargetReport(target="onnx", status="failed", error="onnxruntime cannot load <model> [x]")
    reference = Reference(0.7033, 0.7020, 101, "camvid:val", FP32, INT8)
    return Report(
        "b0", "demo", (384, 512), "logits", 312.5, reference, (tflite, below, failed), PRECISION, Gates(1.0), MADE
    )


@pytest.fixture
def over_budget(report: Report) -> TargetReport:
    """A file that takes more than it may."""
    budget = Budget(2 * 2**20, "growth", 3 * 2**20)
    return replace(report.targets[0], target="small", status="over_budget", budget=budget, error=budget.verdict())
