"""report.json round trip and validation, the table on the terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from segformer_edge.errors import SegformerEdgeError
from segformer_edge.report.budget import Budget
from segformer_edge.report.html import render_html
from segformer_edge.report.schema import Report, ReportError
from segformer_edge.report.table import print_report


def test_the_json_is_the_documented_one(report):
    value = report.to_json()
    assert list(value) == [
        "schema_version", "model", "weights", "size", "output", "seconds", "reference", "targets", "precision",
        "gates", "reproduce",
    ]  # fmt: skip
    assert list(value["reference"]) == [
        "fp32_miou", "int8_reference_miou", "images", "dataset", "fp32_per_class_iou", "int8_reference_per_class_iou",
        "weights",
    ]  # fmt: skip
    target = value["targets"][0]
    assert list(target) == [
        "target", "status", "error", "files", "bytes", "miou", "miou_drop", "agreement_fp32", "agreement_int8",
        "latency_ms", "memory", "ops", "per_class_iou", "budget", "export_seconds",
        "npu", "agreement_checked", "profile",
    ]  # fmt: skip
    assert list(target["latency_ms"]) == ["median", "min", "threads", "runs", "device"]
    assert list(target["memory"]) == ["planned_bytes", "peak_bytes", "weights_bytes", "kind", "device"]
    assert list(target["ops"]) == ["total", "int8", "float", "delegated", "fallback"]
    assert value["schema_version"] == 1 and value["size"] == [384, 512] and target["memory"]["peak_bytes"] is None


def test_it_reads_back_what_it_wrote(report, tmp_path):
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report
    assert json.loads((tmp_path / "report.json").read_text()) == report.to_json()


def test_numpy_values_become_numbers_and_nan_becomes_null(report):
    target = replace(report.targets[0], miou=np.float32(0.5), bytes=np.int64(7), agreement_fp32=float("nan"))
    value = replace(report, targets=(target,)).to_json()["targets"][0]
    assert value["miou"] == 0.5 and value["bytes"] == 7 and value["agreement_fp32"] is None
    json.dumps(value, allow_nan=False)


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("schema_version",), 2, "schema_version"),
        (("size",), [384], "2"),
        (("output",), "masks", "logits, labels"),
        (("targets", 0, "status"), "fine", r"targets\[0\].status"),
        (("targets", 0, "miou"), 70.12, "fraction"),
        (("targets", 0, "miou_drop"), 2.1, "fractions"),
        (("targets", 0, "bytes"), -1, "bytes"),
        (("targets", 0, "bytes"), 1.5, "not an integer"),
        (("targets", 0, "files"), "model.tflite", "not a list"),
        (("targets", 0, "latency_ms", "min"), 200.0, "median"),
        (("targets", 0, "latency_ms", "threads"), 0, "threads"),
        (("targets", 0, "ops", "fallback"), [1], r"fallback\[0\]"),
        (("targets", 1, "target"), "tflite", "twice"),
        (("targets", 2, "error"), None, "status is failed"),
        (("reference", "images"), "all", "images"),
    ],
)
def test_a_wrong_field_is_named(report, keys, value, words):
    content = report.to_json()
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(ReportError, match=words):
        Report.from_json(content)
    del place[keys[-1]]
    with pytest.raises(ReportError):
        Report.from_json(content)


def test_nothing_invalid_is_written(report, tmp_path):
    with pytest.raises(ReportError):
        replace(report, targets=(replace(report.targets[0], status="great"),)).save(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("reference", "fp32_per_class_iou", "road"), 95.1, r"fp32_per_class_iou\.road.*fraction"),
        (("targets", 0, "per_class_iou", "road"), "much", r"targets\[0\]\.per_class_iou\.road"),
        (("targets", 0, "profile", "operators", "slowest", 0, "delegated"), 1, r"slowest\[0\]\.delegated"),
        (("targets", 0, "profile", "timeline", "live_bytes"), [1, -2], r"profile\.timeline\.live_bytes"),
        (("gates", "max_drop"), -1.0, r"gates\.max_drop"),
        (("reproduce", "sha256", "model.tflite"), 7, r"reproduce\.sha256\.model\.tflite"),
        (("precision", "activations", "int8", "fc1"), 0, r"precision\.activations\.int8\.fc1"),
        (("precision", "weights", "int8"), 8, r"precision\.weights\.int8"),
        (("precision", "weights", "int4"), {"fc1": 8}, r"precision\.weights\.int4.*int8, int16, float"),
    ],
)
def test_a_wrong_entry_of_a_table_is_named(report, keys, value, words):
    content = report.to_json()
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(ReportError, match=words):
        Report.from_json(content)


def test_reports_from_before_these_fields_are_read(report):
    content = report.to_json()
    for key in ("precision", "gates", "reproduce"):
        del content[key]
    later = ("per_class_iou", "profile", "agreement_checked", "npu", "budget")
    for entry in (*content["targets"], content["reference"]):
        for key in [key for key in entry if key.endswith(later)]:
            del entry[key]
    old = Report.from_json(content)
    assert old.precision is None and old.gates is None and old.reproduce is None and old.targets[0].profile is None
    assert old.reference.fp32_per_class_iou is None and old.targets[0].per_class_iou is None
    assert old.targets[0].miou == 0.7012
    page = render_html(old)
    assert "worst class" not in table_text(old) and "sign &amp; post" not in page and "earlier version" in page


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", "nonsense"])
def test_a_file_that_is_no_report_is_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(SegformerEdgeError):
        Report.load(tmp_path / "report.json")


def table_text(report: Report) -> str:
    out = io.StringIO()
    print_report(report, out)
    return out.getvalue()


def test_the_table_in_a_pipe_is_plain_and_one_line_a_target(report):
    text = table_text(report)
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if line.strip().startswith(("tflite ", "openvino ", "onnx "))]
    assert len(lines) == 3
    for cell in ("model.tflite", "3.81 MiB", "0.7012", "+0.0021", "99.10 %", "99.99 %", "141.2 ms", "120 / 234", "ok"):
        assert cell in lines[0]
    assert lines[2].split()[1:] == ["-"] * 9 + ["failed"]
    assert "onnx: onnxruntime cannot load <model> [x]" in text  # no markup is lost
    assert "float32 mIoU 0.7033" in text and "101 images of camvid:val" in text


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", [80, 200])
def test_the_table_on_a_terminal_loses_no_cell(report, monkeypatch, width, colour):
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if colour:
        monkeypatch.delenv("NO_COLOR", raising=False)
    else:
        monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    print_report(report, out)
    text = out.getvalue()
    assert ("\x1b[32m" in text) is colour
    for cell in ("model.tflite", "0.7012", "99.99 %", "120 / 234", "below_accuracy"):
        assert cell in text
    assert "…" not in text


def test_a_verdict_on_memory_is_told_beside_one_on_accuracy(report, over_budget):
    below = replace(report.targets[1], budget=Budget(2 * 2**20, "growth", 2**20))
    text = table_text(replace(report, targets=(below, over_budget)))
    assert "openvino: mIoU drops by 0.0123\nopenvino: PASS: 1.00 MiB of 2.00 MiB" in text
    assert text.count("small: FAIL: 3.00 MiB of 2.00 MiB") == 1


def test_the_class_that_loses_most_is_named_in_a_line(report):
    assert "worst class: sign & post -0.0121 (tflite)\n" in table_text(report)
    gains = replace(report.targets[1], per_class_iou={"road": 0.96, "sign & post": 0.76, "never": 0.0})
    assert "worst class: sign & post +0.0067 (openvino)" in table_text(replace(report, targets=(gains,)))
    assert "worst class" not in table_text(replace(report, targets=report.targets[2:]))
