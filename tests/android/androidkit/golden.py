"""Golden vectors: what the Python package computes, for the app's classes to repeat bit for bit.

``write_vectors(folder)`` writes ``cases.json`` and one file for each array. JUnit reads them; nothing is committed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from androidkit.frames import CameraFrame, camera_frame
from androidkit.sidecars import sidecar, wrong_sidecars
from segformer_edge.data.processing import Preprocessing, resize_image, resize_labels
from segformer_edge.data.scenes import PALETTE, draw_scene
from segformer_edge.data.upsampling import LabelUpsampler
from segformer_edge.runtime.frame import FrameTools
from segformer_edge.runtime.metadata import ArtifactMetadata
from segformer_edge.runtime.pictures import overlay

SEED = 20
ORIENTATIONS = tuple((turns, mirrored) for turns in range(4) for mirrored in (False, True))


@dataclass
class Vectors:
    """A folder of arrays and the list of cases that names them."""

    folder: Path
    cases: list[dict[str, Any]] = field(default_factory=list)
    names: Iterator[int] = field(default_factory=count)

    def array(self, values: np.ndarray) -> str:
        """Write ``values`` as they lie in memory; returns the file's name."""
        name = f"{next(self.names):04d}.bin"
        np.ascontiguousarray(values).tofile(self.folder / name)
        return name

    def add(self, kind: str, **values: Any) -> None:
        """One case; arrays become files."""
        self.cases.append(
            {"kind": kind, **{k: self.array(v) if isinstance(v, np.ndarray) else v for k, v in values.items()}}
        )

    def frame(self, frame: CameraFrame) -> dict[str, Any]:
        """A camera's frame: its planes and their strides."""
        planes = {
            name: {"file": self.array(plane.data), "row_stride": plane.row_stride, "pixel_stride": plane.pixel_stride}
            for name, plane in (("y", frame.y), ("u", frame.u), ("v", frame.v))
        }
        return {"width": frame.width, "height": frame.height, **planes}


def write_vectors(folder: Path) -> int:
    """Fill the empty ``folder``; returns the number of cases."""
    rng = np.random.default_rng(SEED)
    vectors = Vectors(folder)
    _resizing(vectors, rng)
    _inputs(vectors, rng)
    _frames(vectors, rng)
    _upsampling(vectors, rng)
    _label_resizing(vectors, rng)
    _blending(vectors, rng)
    _pipeline(vectors, rng)
    _sidecars(vectors)
    (folder / "cases.json").write_text(json.dumps({"cases": vectors.cases}))
    return len(vectors.cases)


def _image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _resizing(vectors: Vectors, rng: np.random.Generator) -> None:
    sizes = [tuple(int(side) for side in rng.integers(1, 200, 4)) for _ in range(120)]
    sizes += [(480, 640, 256, 256), (720, 1280, 512, 512), (64, 64, 32, 32), (33, 47, 66, 94), (50, 60, 50, 60)]
    sizes += [(1, 1, 7, 9), (2, 300, 64, 3), (90, 1, 64, 64)]
    for height, width, new_height, new_width in sizes:
        image = _image(rng, height, width)
        vectors.add(
            "resize", height=height, width=width, new_height=new_height, new_width=new_width, image=image,
            expected=resize_image(image, (new_height, new_width)),
        )  # fmt: skip


def _inputs(vectors: Vectors, rng: np.random.Generator) -> None:
    for dtype in ("int8", "uint8", "float32"):
        for layout in ("nhwc", "nchw"):
            for height, width in ((64, 96), (61, 45)):
                scale, zero_point = (float(rng.uniform(0.01, 0.03)), int(rng.integers(-20, 20)))
                quantized = dtype != "float32"
                about = sidecar(
                    size=(64, 96), input_dtype=dtype, input_layout=layout,
                    input_scale=scale if quantized else None, input_zero_point=zero_point if quantized else None,
                )  # fmt: skip
                normalisation = about.normalisation
                prepare = Preprocessing(about.size, normalisation.mean, normalisation.std)
                image = _image(rng, height, width)
                spec = about.input
                expected = prepare.network_input(dtype, spec.scale, spec.zero_point, layout)(image)
                vectors.add(
                    "input", metadata=json.dumps(about.to_json()), height=height, width=width, image=image,
                    expected=expected,
                )  # fmt: skip


def _frames(vectors: Vectors, rng: np.random.Generator) -> None:
    for height, width in ((48, 64), (33, 47), (2, 2), (1, 1), (480, 640)):
        for pixel_stride in (1, 2):
            for turns, mirrored in ORIENTATIONS if height < 480 else ORIENTATIONS[2:4]:
                frame = camera_frame(_image(rng, height, width), pixel_stride, rng)
                vectors.add(
                    "frame", frame=vectors.frame(frame), turns=turns, mirrored=mirrored,
                    expected=frame.upright(turns, mirrored),
                )  # fmt: skip


def _logits(rng: np.random.Generator, dtype: str, shape: tuple[int, int, int], noise: float) -> np.ndarray:
    """(C, h, w): a smooth field with ``noise``, which a real network's logits resemble more than noise alone."""
    coarse = rng.normal(size=(shape[0], 4, 5)).astype(np.float32)
    rows, columns = (np.linspace(0, n - 1, side).astype(int) for n, side in ((4, shape[1]), (5, shape[2])))
    field = coarse[:, rows][:, :, columns] + noise * rng.normal(size=shape).astype(np.float32)
    if dtype == "float32":
        return field.astype(np.float32)
    limits = np.iinfo(dtype)
    spread = (limits.max - limits.min) / 8
    return np.clip(np.rint(field * spread) + (limits.max + limits.min) // 2, limits.min, limits.max).astype(dtype)


def _upsampling(vectors: Vectors, rng: np.random.Generator) -> None:
    sizes = [(16, 24, 64, 96), (16, 16, 61, 45), (9, 7, 5, 30), (12, 20, 12, 20), (32, 32, 240, 320), (1, 1, 8, 8)]
    for dtype in ("int8", "uint8", "int16", "float32"):
        for classes in (1, 2, 5, 19, 150):
            for height, width, new_height, new_width in sizes:
                for noise in (0.05, 1.0):
                    logits = _logits(rng, dtype, (classes, height, width), noise)
                    if dtype == "float32" and noise == 1.0:
                        # Dequantized integers: float logits that tie.
                        logits = _logits(rng, "int8", logits.shape, 0.3).astype(np.float32) * np.float32(0.173)
                    layout = ("nchw", "nhwc")[int(rng.integers(2))]
                    if layout == "nhwc":
                        logits = np.ascontiguousarray(logits.transpose(1, 2, 0))
                    size = (new_height, new_width)
                    vectors.add(
                        "upsample", dtype=dtype, layout=layout, classes=classes, height=height, width=width,
                        new_height=new_height, new_width=new_width, logits=logits,
                        expected=LabelUpsampler(logits.shape, logits.dtype, size, layout)(logits),
                    )  # fmt: skip


def _label_resizing(vectors: Vectors, rng: np.random.Generator) -> None:
    for case in range(30):
        height, width, new_height, new_width = (int(side) for side in rng.integers(1, 120, 4))
        labels = rng.integers(0, (2, 4, 200)[case % 3], (height, width), dtype=np.uint8)
        vectors.add(
            "labels", height=height, width=width, new_height=new_height, new_width=new_width, labels=labels,
            expected=resize_labels(labels, (new_height, new_width)),
        )  # fmt: skip


def _blending(vectors: Vectors, rng: np.random.Generator) -> None:
    for opacity in (0.0, 0.25, 0.3, 0.5, 0.77, 1.0):
        image = _image(rng, 40, 60)
        labels = rng.integers(0, len(PALETTE), (40, 60), dtype=np.uint8)
        vectors.add(
            "blend", height=40, width=60, image=image, labels=labels, palette=[list(c) for c in PALETTE],
            percent=round(100 * opacity), expected=overlay(image, labels, PALETTE, round(100 * opacity) / 100),
        )  # fmt: skip


def _pipeline(vectors: Vectors, rng: np.random.Generator) -> None:
    """From a camera's frame and a network's raw output to the tensor and the label map."""
    for about in _networks():
        for turns, mirrored in ORIENTATIONS[::3]:
            scene = draw_scene(int(rng.integers(1000)), (70, 110))[0]
            frame = camera_frame(scene, int(rng.integers(1, 3)), rng)
            image = frame.upright(turns, mirrored)
            tools = FrameTools(about, Preprocessing(about.size, about.normalisation.mean, about.normalisation.std))
            output = _output(about, rng)
            vectors.add(
                "pipeline", metadata=json.dumps(about.to_json()), frame=vectors.frame(frame), turns=turns,
                mirrored=mirrored, tensor=tools.batch(image).copy(), output=output, height=image.shape[0],
                width=image.shape[1], expected=tools.labels(output, image.shape[:2]),
            )  # fmt: skip


def _networks() -> Iterator[ArtifactMetadata]:
    yield sidecar()
    yield sidecar(output_dtype="float32")
    yield sidecar(output_layout="nhwc", output_dtype="uint8", input_dtype="uint8", input_layout="nchw")
    yield sidecar(input_dtype="float32", input_layout="nchw", output_dtype="int16")
    for dtype in ("uint8", "int8", "int16", "int32", "int64"):
        yield sidecar(kind="labels", output_dtype=dtype)
    yield sidecar(kind="labels", output_dtype="uint8", labels_shape=(1, 64, 96, 1), output_layout="nhwc")


def _output(about: ArtifactMetadata, rng: np.random.Generator) -> np.ndarray:
    spec = about.output
    if spec.kind == "labels":
        return rng.integers(0, len(about.class_names), spec.shape).astype(spec.dtype)
    shape = spec.shape[1:] if spec.layout == "nchw" else (spec.shape[3], *spec.shape[1:3])
    logits = _logits(rng, spec.dtype, shape, 0.3)
    return np.ascontiguousarray(logits if spec.layout == "nchw" else logits.transpose(1, 2, 0))[None]


def _sidecars(vectors: Vectors) -> None:
    for about in _networks():
        vectors.add("sidecar", metadata=json.dumps(about.to_json()), valid=True, why="as exported")
    for why, text, valid in wrong_sidecars():
        vectors.add("sidecar", metadata=text, valid=valid, why=why)
