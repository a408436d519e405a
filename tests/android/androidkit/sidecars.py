"""Metadata for vectors, and sidecars with something wrong in them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from segformer_edge.data.scenes import CLASS_NAMES, PALETTE
from segformer_edge.errors import SegformerEdgeError
from segformer_edge.runtime.metadata import ArtifactMetadata, InputSpec, Normalisation, OutputSpec, WeightsSource

#: Values that fit no field, one after another put in place of each.
_STRANGE: tuple[Any, ...] = (None, True, 0, -1, 1.5, "", "x", [], [0], {}, 1e308, 1 << 40)


def sidecar(
    *,
    size: tuple[int, int] = (64, 96),
    input_dtype: str = "int8",
    input_layout: str = "nhwc",
    input_scale: float | None = 0.0186,
    input_zero_point: int | None = -15,
    kind: str = "logits",
    output_dtype: str = "int8",
    output_layout: str = "nchw",
    labels_shape: tuple[int, ...] | None = None,
) -> ArtifactMetadata:
    """What an exporter would write for a ``.pte``. Zero points are int8's; uint8's are 128 more."""
    height, width, classes = *size, len(CLASS_NAMES)
    quantized = output_dtype != "float32" and kind == "logits"
    shape = (1, classes, height // 4, width // 4) if output_layout == "nchw" else (1, height // 4, width // 4, classes)
    if input_dtype == "float32":
        input_scale = input_zero_point = None
    return ArtifactMetadata(
        format="executorch",
        file="model.pte",
        model="b0",
        target="executorch",
        size=size,
        input=InputSpec(
            name=None,
            shape=(1, 3, *size) if input_layout == "nchw" else (1, *size, 3),
            layout=input_layout,
            dtype=input_dtype,
            scale=input_scale,
            zero_point=input_zero_point + 128 if input_dtype == "uint8" and input_zero_point else input_zero_point,
        ),
        output=OutputSpec(
            name=None,
            kind=kind,
            shape=shape if kind == "logits" else labels_shape or (1, *size),
            layout=output_layout,
            dtype=output_dtype,
            scale=0.17 if quantized else None,
            zero_point=3 if quantized else None,
        ),
        normalisation=Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        class_names=CLASS_NAMES,
        palette=PALETTE,
        recipe="mixed",
        weights=WeightsSource("demo", None, "Apache-2.0"),
        tools={"executorch": "1"},
        files={"model.pte": "0" * 64},
    )


def wrong_sidecars() -> Iterator[tuple[str, str, bool]]:
    """What was changed, the text, and whether Python takes it all the same."""
    for text in (
        "",
        "{",
        "[]",
        "null",
        "1",
        '{"a": 1}',
        '{"schema_version": 1,}',
        "nonsense",
        '{"a": NaN}',
        "\ufeff{}",
    ):
        yield f"text {text!r}", text, _taken(text)
    whole = json.loads(json.dumps(sidecar().to_json()))
    for path in _paths(whole):
        for value in (*_STRANGE, ...):
            changed = copy.deepcopy(whole)
            place = changed
            for key in path[:-1]:
                place = place[key]
            if value is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = value
            text = json.dumps(changed)
            # Its integers have 32 bits.
            if value == 1 << 40 and "shape" in path:
                continue
            # The app leaves out what it does not need: the recipe, the tools, where the weights came from.
            if path[0] in ("recipe", "tools", "target", "encodings_sha256") or path[-1] in ("name", "source", "sha256"):
                continue
            yield f"{'.'.join(map(str, path))} = {value!r}", text, _taken(text)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from _paths(value[key], (*path, key))


def _taken(text: str) -> bool:
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            return False
        ArtifactMetadata.from_json(value)
    except (SegformerEdgeError, ValueError):
        return False
    return True
