"""The terminal's table as a picture."""

from __future__ import annotations

from xml.etree import ElementTree

from segformer_edge.report.terminal_svg import terminal_svg


def test_it_has_the_tables_text_and_fetches_nothing(report):
    svg = terminal_svg(report, "make [demo]")
    words = "".join(ElementTree.fromstring(svg).itertext()).replace("\xa0", " ")
    for text in ("$ make [demo]", "model.tflite", "99.99 %", "below_accuracy", "onnxruntime cannot load <model> [x]"):
        assert text in words
    assert "url(http" not in svg and "@font-face" not in svg and len(svg) < 50_000
