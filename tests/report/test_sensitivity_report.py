"""What the sensitivity table says and which lines of a recipe it proposes."""

from __future__ import annotations

import io
import json
import tomllib

import cv2
import numpy as np
import pytest

from segformer_edge.report.sensitivity import Harm, PartHarm, Sensitivity, Suggestion, print_sensitivity, recipe_lines
from segformer_edge.report.sensitivity_plot import plot_sensitivity


def part(name: str, kl: float, drop: float | None, weights: float = 0.0, activations: float = 0.0, width: str = "int8"):
    halves = [Harm(half, 0.99, drop) if half else None for half in (weights, activations)]
    has = {} if weights and not activations else {width: 8}
    return PartHarm(name, has, {"int8": 8} if weights else {}, Harm(kl, 0.9912, drop), *halves, Harm(0.004, 0.99, drop))


def result(roles: tuple[PartHarm, ...], scored: bool = True) -> Sensitivity:
    drop = 0.0123 if scored else None
    miou, dataset = (0.7072, "camvid:val") if scored else (None, None)
    whole, modules = Harm(0.005, 0.98, drop), (part("stages.0", 0.002, drop),)
    return Sensitivity("b0", "demo", (256, 256), "mixed", 24, dataset, miou, whole, roles, modules, 181.0)


ROLES = (
    part("gelu", 0.001, 0.0040),
    part("fc1", 0.003, 0.0020, weights=0.0001, activations=0.0030),
    part("depthwise", 0.002, 0.0010, weights=0.0015, activations=0.0004),
    part("norm", 0.0002, -0.0005),
)


def test_the_suggestions_are_the_worse_halves_of_what_diverges_most():
    found = result(ROLES).suggestions()
    assert found == [
        Suggestion("sites", "fc1", "int8", "float"),
        Suggestion("weights", "depthwise", "int8", "float"),
        Suggestion("sites", "gelu", "int8", "float"),
    ]
    lines = tomllib.loads(recipe_lines(found))
    assert lines == {"sites": {"fc1": "float", "gelu": "float"}, "weights": {"depthwise": "float"}}


def test_a_recipe_with_int16_is_widened_to_int16_and_its_weights_are_left():
    roles = (*ROLES, part("residual", 0.01, 0.01, width="int16"))
    assert result(roles).suggestions() == [
        Suggestion("sites", "fc1", "int8", "int16"),
        Suggestion("sites", "gelu", "int8", "int16"),
        Suggestion("sites", "norm", "int8", "int16"),
    ]


def test_nothing_is_suggested_where_nothing_diverges():
    assert result((part("gelu", 0.0, 0.0),)).suggestions() == []


@pytest.mark.parametrize("scored", [True, False])
def test_the_table_has_a_row_for_every_part(scored):
    roles = ROLES if scored else tuple(part(entry.name, entry.alone.kl, None) for entry in ROLES)
    out = io.StringIO()
    print_sensitivity(result(roles, scored), out)
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    rows = [line.split() for line in lines if line.strip().startswith(("gelu", "fc1", "stages.0"))]
    assert [row[0] for row in rows] == ["gelu", "fc1", "stages.0"]
    assert ("+0.0040" in rows[0]) == scored and "0.001000" in rows[0] and "+0.001000" in rows[0]
    assert sum(line.strip().startswith("everything") for line in lines) == 2
    assert ("24 images of camvid:val" in out.getvalue()) == scored
    assert f"sorted by {'mIoU drop' if scored else 'KL divergence'}" in out.getvalue()


def test_the_json_has_null_for_what_was_not_measured(tmp_path):
    result((part("gelu", 0.001, float("nan")),)).save(tmp_path / "sensitivity.json")
    content = json.loads((tmp_path / "sensitivity.json").read_text())
    assert content["schema_version"] == 1 and content["roles"][0]["alone"]["miou_drop"] is None
    assert content["roles"][0]["weights_alone"] is None and content["size"] == [256, 256]
    assert content["suggestions"] == [{"table": "sites", "role": "gelu", "has": "int8", "to": "float"}]


def test_longer_bars_for_more_harm():
    """Read back from the picture: a wide blue bar needs more blue pixels."""

    def blue(kl: float) -> int:
        roles = (part("a", kl, None), part("b", 0.0001, None))
        picture = cv2.imdecode(np.frombuffer(plot_sensitivity(result(roles, scored=False)), np.uint8), cv2.IMREAD_COLOR)
        return int((np.abs(picture.astype(int) - [0xA8, 0x78, 0x4C]).sum(2) < 30).sum())

    assert blue(0.004) > 1.2 * blue(0.001) > 0
