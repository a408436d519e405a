"""A run's log: one JSON object a line, each with its step; and the curve drawn from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LOG_FILE, CURVE_FILE = "log.jsonl", "curve.png"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that a kill cut short is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def prune_log(path: Path, step: int) -> None:
    """Drop the lines after ``step``, which a resumed run will write again; below 0, all of them."""
    kept = [line for line in read_log(path) if line["step"] <= step]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(partial, path)


def draw_curve(log: Path, path: Path) -> None:
    """Loss and validated mIoU by step, with the float start's and the first candidate's mIoU as lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = read_log(log)

    def series(key: str) -> tuple[list[int], list[float]]:
        found = [(line["step"], line[key]) for line in lines if key in line]
        return [step for step, _ in found], [value for _, value in found]

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    left.plot(*series("loss"))
    left.set(xlabel="step", ylabel="loss")
    steps, scores = series("miou")
    right.plot(steps, scores, marker="o", label="quantized")
    for label, value, style in (
        ("float start", series("float_miou")[1], "--"),
        ("post-training", scores if steps and steps[0] == 0 else [], ":"),
    ):
        if value:
            right.axhline(value[0], linestyle=style, color="grey", label=f"{label} {value[0]:.4f}")
    right.set(xlabel="step", ylabel="validation mIoU")
    right.legend()
    figure.tight_layout()
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png")
    plt.close(figure)
    os.replace(partial, path)
