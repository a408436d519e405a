"""report.json round trip and validation, the table, the page."""

from __future__ import annotations

import html.parser
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from segformer_edge.errors import SegformerEdgeError
from segformer_edge.report.html import Example, render_html, write_html
from segformer_edge.report.schema import Latency, Memory, Ops, Precision, Reference, Report, ReportError, TargetReport
from segformer_edge.report.table import print_report
from segformer_edge.runtime.pictures import png

FP32 = {"road": 0.9512, "sign & post": 0.7533, "never": None}
INT8 = {"road": 0.9511, "sign & post": 0.7529, "never": None}
PRECISION = Precision({"int8": {"fc1": 8, "norm": 16}, "float": {"residual": 24}}, {"int8": {"fc1": 8}})


@pytest.fixture
def report() -> Report:
    tflite = TargetReport(
        target="tflite", status="ok", files=("model.tflite", "model.tflite.json"), bytes=4_000_000,
        miou=0.7012, miou_drop=0.0021, agreement_fp32=0.991, agreement_int8=0.99996,
        latency_ms=Latency(141.2, 139.0, 1, 20, "host x86_64"),
        memory=Memory(11_000_000, None, 4_000_000, "planned", "host x86_64"),
        ops=Ops(354, 120, 234, 354, ("GELU",)), per_class_iou={"road": 0.9476, "sign & post": 0.7412, "never": None},
    )  # fmt: skip
    below = replace(
        tflite, target="openvino", status="below_accuracy", files=("model.xml", "model.bin"), per_class_iou=INT8
    )
    failed = TargetReport(target="onnx", status="failed", error="onnxruntime cannot load <model> [x]")
    reference = Reference(0.7033, 0.7020, 101, "camvid:val", FP32, INT8)
    return Report("b0", "demo", (384, 512), "logits", 312.5, reference, (tflite, below, failed), PRECISION)


def test_the_json_is_the_documented_one(report):
    value = report.to_json()
    assert list(value) == [
        "schema_version", "model", "weights", "size", "output", "seconds", "reference", "targets", "precision",
    ]  # fmt: skip
    assert list(value["reference"]) == [
        "fp32_miou", "int8_reference_miou", "images", "dataset", "fp32_per_class_iou", "int8_reference_per_class_iou",
        "weights",
    ]  # fmt: skip
    target = value["targets"][0]
    assert list(target) == [
        "target", "status", "error", "files", "bytes", "miou", "miou_drop", "agreement_fp32", "agreement_int8",
        "latency_ms", "memory", "ops", "per_class_iou", "budget", "export_seconds",
        "npu",
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
    del content["precision"]
    for entry in (*content["targets"], content["reference"]):
        for key in [key for key in entry if key.endswith("per_class_iou")]:
            del entry[key]
    old = Report.from_json(content)
    assert old.precision is None and old.reference.fp32_per_class_iou is None and old.targets[0].per_class_iou is None
    assert old.targets[0].miou == 0.7012
    assert "worst class" not in table_text(old) and "<h2>Classes" not in render_html(old)


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
    lines = [line for line in text.splitlines() if line.strip().startswith(("tflite", "openvino", "onnx "))]
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


class Outline(html.parser.HTMLParser):
    """Tags and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_stands_alone(report, tmp_path):
    picture = png(np.full((6, 8, 3), 90, np.uint8))
    examples = [Example("scene <1>", (("input", picture), ("float32", picture), ("INT8", picture)))]
    write_html(tmp_path / "report.html", report, examples, ["Weights: non-commercial <licence>."])
    text = (tmp_path / "report.html").read_text()
    outline = Outline()
    outline.feed(text)
    assert outline.tags.count("img") == 3 and "script" not in outline.tags
    assert all(reference.startswith("data:image/png;base64,") for reference in outline.references)
    assert "//" not in text.replace("base64,", "").split("data:")[0]
    assert "&lt;model&gt;" in text and "scene &lt;1&gt;" in text and "&lt;licence&gt;" in text
    for cell in ("0.7012", "99.99 %", "below_accuracy", "GELU", "prefers-color-scheme"):
        assert cell in text


def test_the_page_needs_no_measurements():
    empty = Report("b1", "demo", (64, 64), "labels", None, Reference(None, None, None, None), ())
    text = render_html(empty)
    assert "None" not in text and "not measured" in text


def test_a_picture_that_is_no_png_is_a_defect(report):
    with pytest.raises(ValueError, match="PNG"):
        render_html(report, [Example("x", (("input", b"GIF89a"),))])


def test_the_class_that_loses_most_is_named_in_a_line(report):
    assert "worst class: sign & post -0.0121 (tflite)\n" in table_text(report)
    gains = replace(report.targets[1], per_class_iou={"road": 0.96, "sign & post": 0.76, "never": 0.0})
    assert "worst class: sign & post +0.0067 (openvino)" in table_text(replace(report, targets=(gains,)))
    assert "worst class" not in table_text(replace(report, targets=report.targets[2:]))


class Cells(html.parser.HTMLParser):
    """The page's tables: rows of (text, class)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[list[str]]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(["", dict(attrs).get("class") or ""])
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1][0] += data


def test_the_page_shows_every_class_beside_float32_and_marks_losses(report):
    rows = Cells(render_html(report)).rows
    assert [text for text, _ in next(row for row in rows if row[0][0] == "class")] == [
        "class", "float32", "INT8 reference", "tflite", "openvino",
    ]  # fmt: skip
    assert next(row for row in rows if row[0][0] == "sign & post") == [
        ["sign & post", ""], ["0.7533", ""], ["0.7529 -0.0004", ""], ["0.7412 -0.0121", "lost"], ["0.7529 -0.0004", ""],
    ]  # fmt: skip
    assert [text for text, _ in next(row for row in rows if row[0][0] == "never")] == ["never", "-", "-", "-", "-"]


def test_the_page_says_what_is_not_int8(report):
    text = " ".join(render_html(report).split())
    assert "Activations: 24 int8, 0 int16, 24 float. float: residual (24)." in text
    assert "Weights: 8 int8, 0 int16, 0 float. </li>" in text
    wide = replace(report, precision=Precision({"int8": {"fc1": 8}, "int16": {"norm": 2, "gelu": 3}}, {}))
    assert "int16: norm (2), gelu (3)." in " ".join(render_html(wide).split())


def test_the_page_shows_the_sensitivity_plot(report):
    picture = png(np.full((6, 8, 3), 90, np.uint8))
    without, with_plot = Outline(), Outline()
    without.feed(render_html(report))
    with_plot.feed(render_html(report, sensitivity_png=picture))
    assert without.references == []
    assert len(with_plot.references) == 1 and with_plot.references[0].startswith("data:image/png;base64,")


def test_a_run_reports_the_classes_that_its_miou_is_the_mean_of(tiny_run):
    written = Report.load(tiny_run.out / "report.json")
    scores = [
        (written.reference.fp32_miou, written.reference.fp32_per_class_iou),
        (written.reference.int8_reference_miou, written.reference.int8_reference_per_class_iou),
        *((target.miou, target.per_class_iou) for target in written.targets),
    ]
    assert len(scores) == 6
    for miou, classes in scores:
        assert list(classes) == ["sky", "ground", "road", "water", "rest"]
        assert np.mean([iou for iou in classes.values() if iou is not None]) == pytest.approx(miou, abs=1e-12)
    assert "<h2>Classes</h2>" in (tiny_run.out / "report.html").read_text()
