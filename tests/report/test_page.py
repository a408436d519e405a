"""report.html as text: what is in it, and that it needs nothing else."""

from __future__ import annotations

import html
import html.parser
import re
from dataclasses import replace

import numpy as np
import pytest

from segformer_edge.report.examples import Example, Picture
from segformer_edge.report.gates import Gates
from segformer_edge.report.html import render_html, write_html
from segformer_edge.report.npu import NpuMode, NpuReport
from segformer_edge.report.schema import Precision, Reference, Report
from segformer_edge.runtime.pictures import jpeg, png

PNG = png(np.full((6, 8, 3), 90, np.uint8))
JPEG = jpeg(np.full((6, 8, 3), 90, np.uint8))


class Outline(html.parser.HTMLParser):
    """Tags and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def example(name: str = "scene <1>") -> Example:
    shared = (Picture("input", f"{name}, input", JPEG), Picture("float32", "by float32", JPEG))
    own = (Picture("INT8", "by the file", JPEG), Picture("difference", "where it differs", PNG))
    return Example(name, shared, (("tflite", own), ("openvino", own)))


def test_the_page_stands_alone(report, tmp_path):
    write_html(tmp_path / "report.html", report, [example()], ["Weights: non-commercial <licence>."], PNG)
    text = (tmp_path / "report.html").read_text()
    page = Outline(text)
    pictures = page.all("img")
    assert len(pictures) == 2 + 2 * 2 + 2 and all(picture["alt"] for picture in pictures)
    sources = [each[name] for _, each in page.tags for name in ("src", "href") if name in each]
    assert all(source.startswith(("data:image/", "data:,", "#")) for source in sources)
    assert [each.get("src") for each in page.all("script")] == [None]
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "script-src 'sha256-" in policy
    assert (
        "&lt;model&gt;" in text and "scene &lt;1&gt;" in text and "&lt;licence&gt;" in text and "stage <0>" not in text
    )
    for cell in ("0.7012", "99.99 %", "below_accuracy", "GELU", "light-dark("):
        assert cell in text


def test_links_lead_to_sections_and_names_are_unique(report):
    page = Outline(render_html(report, [example()]))
    names = [each["id"] for _, each in page.tags if "id" in each]
    assert len(set(names)) == len(names)
    links = {each["href"][1:] for each in page.all("a")}
    assert links == {each["id"] for each in page.all("section")} and len(links) == 8


def test_the_page_needs_no_measurements():
    empty = Report("b1", "demo", (64, 64), "labels", None, Reference(None, None, None, None), ())
    text = render_html(empty)
    assert "None" not in text and "not measured" in text


def test_a_picture_of_another_kind_is_a_defect(report):
    with pytest.raises(ValueError, match="neither PNG nor JPEG"):
        render_html(report, [Example("x", (Picture("input", "x", b"GIF89a"),))])


def section(text: str, name: str) -> str:
    """The words of one section, without tags."""
    start = text.index(f'<section id="{name}">')
    words = re.sub(r"<[^>]*>", " ", text[start : text.index("</section>", start)])
    return html.unescape(" ".join(words.split()))


def test_the_summary_holds_every_target_against_its_bounds(report, over_budget):
    whole = replace(report, targets=(*report.targets, over_budget), gates=Gates(1.0, 2 * 2**20))
    words = section(render_html(whole), "summary")
    assert "1 of 4 targets pass" in words
    assert "tflite PASS PASS agreement 99.98 % of pixels as the INT8 reference bound: at least 90%" in words
    assert "PASS accuracy 0.21 points of mIoU lost bound: at most 1 lost" in words
    assert "openvino FAIL PASS agreement" in words and "FAIL accuracy 1.23 points of mIoU lost" in words
    assert "onnx FAIL FAIL file written and run onnxruntime cannot load <model> [x]" in words
    assert "FAIL memory 3.00 MiB bound: at most 2.00 MiB" in words


def test_it_says_how_each_figure_was_found(report):
    latency = replace(report.targets[0].latency_ms, device="emulated cortex-a72")
    rows = Cells(render_html(replace(report, targets=(replace(report.targets[0], latency_ms=latency),)))).rows
    found = {row[0][0]: row[2][0] for row in rows if len(row) == 4}
    expected = {
        "size": "counted", "mIoU": "measured", "latency": "emulated", "planned memory": "planned",
        "largest sum of live tensors": "estimated", "operators": "counted",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_it_lists_operators_with_what_is_not_known_as_a_dash(report):
    rows = [[text for text, _ in row] for row in Cells(render_html(report)).rows]
    assert ["40.500", "29.0 %", "CONV_2D", "53", "GEMM", "yes", "int8"] in rows
    assert ["40.500", "29.0 %", "CONV_2D", "stage <0>", "GEMM", "yes", "int8"] in rows
    assert "Other programs took the CPU <meanwhile>." in section(render_html(report), "operators")
    assert ["-", "-", "SOFTMAX", "s", "-", "no", "-"] in rows


def test_it_shows_the_timelines_it_is_given(report):
    page = render_html(report, timelines={"tflite": '<svg class="timeline"></svg>', "openvino": None})
    assert page.count("<svg") == 1 and "At most 4.0 KiB live at CONV_2D 1; the runtime shows no plan" in " ".join(
        section(page, "memory").split()
    )


def test_it_says_how_to_make_it_again(report):
    words = section(render_html(report), "reproduce")
    assert "python -m segformer_edge.quantize --out 'my out'" in words
    assert "cd" * 32 in words and "ab" * 32 in words and "3.11.7" in words
    called = replace(report, reproduce=replace(report.reproduce, command=None))
    assert "size (384, 512)" in section(render_html(called), "reproduce")


def test_an_npu_shows_its_compilers_plan_as_such(report):
    mode = NpuMode("Shared_Sram", "system", 500_000, 0, 4_000_000, 123456, 81.5)
    npu = NpuReport("ethos-u85-256", "Vela 5", "Shared_Sram", 10, 10, (), (mode,), "model.host.tflite")
    target = replace(report.targets[0], target="ethos-u85-256", latency_ms=None, profile=None, npu=npu)
    page = render_html(replace(report, targets=(target,)))
    assert "speed 81.5 inferences a second estimated" in section(page, "figures")
    assert "planned by the compiler" in section(page, "memory") and "488.3 KiB" in section(page, "memory")
    assert "81.5 inferences a second (compiler's estimate)" in section(page, "operators")
    assert "model.host.tflite in place of the NPU's file" in section(page, "figures")


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
    assert "--sensitivity asks for it" in section(render_html(report), "sensitivity")
    assert len(Outline(render_html(report, sensitivity_png=PNG)).all("img")) == 1


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
    assert "ground" in section((tiny_run.out / "report.html").read_text(), "classes")
