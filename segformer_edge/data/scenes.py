"""Procedural demo scenes: street and park views drawn from a seed, with exact labels.

They exist so that the SDK can be tried, tested and measured with no download and no licence question. One seed gives
the same scene in every process; between processors an image may differ by a grey level (OpenCV's filters), its labels
do not. Colours of the classes overlap on purpose: shape, texture and place decide.
"""

from __future__ import annotations

import cv2
import numpy as np

from segformer_edge.data.scene_canvas import Canvas
from segformer_edge.data.scene_objects import (
    BUILDING,
    GROUND,
    PERSON,
    ROAD,
    SKY,
    TREE,
    VEHICLE,
    WATER,
    building,
    person,
    tree,
    vehicle,
)  # fmt: skip
from segformer_edge.data.scene_textures import hsv, plain, ripples, speckled, value_noise

#: Index in this tuple is the label in the map.
CLASS_NAMES: tuple[str, ...] = ("sky", "ground", "road", "water", "building", "tree", "vehicle", "person")
PALETTE: tuple[tuple[int, int, int], ...] = (
    (70, 130, 180), (152, 200, 100), (128, 64, 128), (30, 80, 200),
    (150, 100, 80), (30, 110, 40), (230, 160, 20), (220, 20, 60),
)  # fmt: skip

#: Disjoint seed ranges: figures are quoted on VALIDATION_SEEDS, which nothing is chosen or fitted on.
VALIDATION_SEEDS = range(10_000)
#: Post-training calibration of quantization parameters.
CALIBRATION_SEEDS = range(10_000, 20_000)
#: Watching a training run and choosing its best checkpoint.
DEVELOPMENT_SEEDS = range(20_000, 30_000)
TRAINING_SEEDS = range(1_000_000, 2_000_000)

DEFAULT_SIZE = (256, 256)


def draw_scene(seed: int, size: tuple[int, int] = DEFAULT_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Scene ``seed`` as (image uint8 RGB (H, W, 3), labels uint8 (H, W)) with ``size`` = (H, W), both at least 32."""
    rng = np.random.default_rng([0x5E6F, seed])
    canvas = Canvas(rng, size)
    horizon = rng.uniform(0.28, 0.5) * canvas.height
    sky = _paint_sky(canvas, horizon)
    _paint_ground(canvas, horizon)
    has_water = rng.random() < 0.6
    has_road = rng.random() < 0.85
    if has_water:
        _paint_water(canvas, horizon, sky)
    road = _paint_road(canvas, horizon) if has_road else None
    _place_objects(canvas, horizon, road)
    return _light(canvas), canvas.labels


def _paint_sky(canvas: Canvas, horizon: float) -> np.ndarray:
    """Sky gradient with clouds over the whole canvas; returns the sky's mean colour."""
    rng = canvas.rng
    mood = rng.random()
    if mood < 0.5:
        top, low = hsv(rng, (200, 230), (0.25, 0.7), (0.55, 0.95)), hsv(rng, (190, 220), (0.05, 0.3), (0.8, 1.0))
    elif mood < 0.8:
        top, low = hsv(rng, (0, 360), (0.0, 0.08), (0.45, 0.8)), hsv(rng, (0, 360), (0.0, 0.08), (0.65, 0.95))
    else:
        top, low = hsv(rng, (210, 290), (0.15, 0.5), (0.35, 0.7)), hsv(rng, (10, 45), (0.3, 0.7), (0.75, 1.0))
    blend = np.clip(np.arange(canvas.height, dtype=np.float32) / max(horizon, 1), 0, 1)[:, None, None]
    canvas.image[:] = top * (1 - blend) + low * blend
    rows = max(2, int(horizon) + 1)
    cover = value_noise(rng, rows, canvas.width, 14 * canvas.unit, 2.2)
    cover += 0.6 * value_noise(rng, rows, canvas.width, 42 * canvas.unit, 2.0)
    cloud = np.clip(cover - rng.uniform(0.0, 0.9), 0, 1)[:, :, None] * rng.uniform(0.4, 1.0)
    canvas.image[:rows] += cloud * (np.float32(rng.uniform(190, 250)) - canvas.image[:rows])
    canvas.labels[:] = SKY
    return (top + low) / 2


def _paint_ground(canvas: Canvas, horizon: float) -> None:
    """Ground plane of grass, soil, sand or paving, sometimes with hills on the horizon."""
    rng, width = canvas.rng, canvas.width
    kind = rng.random()
    if kind < 0.55:
        colour = hsv(rng, (65, 130), (0.2, 0.65), (0.3, 0.7))
    elif kind < 0.8:
        colour = hsv(rng, (22, 50), (0.15, 0.5), (0.35, 0.85))
    else:
        colour = hsv(rng, (0, 360), (0.0, 0.12), (0.4, 0.8))
    if rng.random() < 0.5:
        x = np.linspace(0, width, 9)
        top = horizon - rng.uniform(0.01, 0.13, 9) * canvas.height
        hill = np.concatenate([np.stack([x, top], 1), [(width, horizon + 3), (0, horizon + 3)]])
        haze = colour * 0.6 + hsv(rng, (190, 240), (0.05, 0.3), (0.5, 0.9)) * 0.4
        canvas.polygon(hill, speckled(haze, 4 * canvas.unit, 0.08), GROUND)
    texture = speckled(colour, max(1.5, rng.uniform(1.5, 3.5) * canvas.unit), rng.uniform(0.1, 0.25), 1.8)
    canvas.rectangle(0, horizon, width, canvas.height - horizon, texture, GROUND)


def _paint_water(canvas: Canvas, horizon: float, sky: np.ndarray) -> None:
    """A lake, or a river across the view."""
    rng, width, depth = canvas.rng, canvas.width, canvas.height - horizon
    colour = hsv(rng, (150, 230), (0.15, 0.6), (0.2, 0.6))
    texture = ripples(colour, sky, rng.uniform(6, 14))
    if rng.random() < 0.45:
        x = np.linspace(0, width, 9)
        far = horizon + (rng.uniform(0.06, 0.3) + rng.uniform(-0.02, 0.02, 9)) * depth
        near = far + (rng.uniform(0.18, 0.4) + rng.uniform(-0.03, 0.03, 9)) * depth
        canvas.polygon(np.concatenate([np.stack([x, far], 1), np.stack([x, near], 1)[::-1]]), texture, WATER)
        return
    ry = rng.uniform(0.14, 0.32) * depth
    y = rng.uniform(horizon + ry + 0.05 * depth, canvas.height)
    canvas.ellipse(rng.uniform(0, 1) * width, y, rng.uniform(0.25, 0.5) * width, ry, texture, WATER, 0.1)


def _paint_road(canvas: Canvas, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """A curved road or path to the horizon; returns its centre x and half width at 0..1 of the depth, 25 samples."""
    rng, width, depth = canvas.rng, canvas.width, canvas.height - horizon
    t = np.linspace(0, 1, 25)
    vanish, foot = rng.uniform(0.15, 0.85) * width, rng.uniform(0.1, 0.9) * width
    bend = rng.uniform(-0.35, 0.35) * width
    centre = vanish + (foot - vanish) * t + bend * t * (1 - t)
    half = (0.015 + rng.uniform(0.14, 0.34) * t) * width
    y = horizon + t * depth
    paved = rng.random() < 0.75
    colour = hsv(rng, (0, 360), (0, 0.1), (0.2, 0.62)) if paved else hsv(rng, (20, 45), (0.15, 0.45), (0.4, 0.8))
    texture = speckled(colour, max(1.0, 1.2 * canvas.unit), 0.08 if paved else 0.16)

    def band(left: np.ndarray, right: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        edge = np.stack([left, y], 1)[rows]
        return np.concatenate([edge, np.stack([right, y], 1)[rows][::-1]])

    canvas.polygon(band(centre - half, centre + half), texture, ROAD)
    if paved and rng.random() < 0.8:
        white = plain(hsv(rng, (30, 60), (0.0, 0.5), (0.75, 0.98)))
        for start in range(6, 24, 4):
            rows = slice(start, start + 3)
            canvas.polygon(band(centre - 0.04 * half, centre + 0.04 * half, rows), white, None)
        if rng.random() < 0.5:
            for side in (-0.9, 0.9):
                canvas.polygon(band(centre + (side - 0.03) * half, centre + (side + 0.03) * half), white, None)
    return centre, half


def _place_objects(canvas: Canvas, horizon: float, road: tuple[np.ndarray, np.ndarray] | None) -> None:
    """Stand buildings, trees, vehicles and people on the plane, far to near, so that near ones hide far ones."""
    rng, width, depth = canvas.rng, canvas.width, canvas.height - horizon
    things: list[tuple[float, int]] = []
    for label, most, near, far in ((BUILDING, 3, 0.06, 0.5), (TREE, 4, 0.08, 0.75), (VEHICLE, 2, 0.3, 0.98),
                                   (PERSON, 3, 0.3, 1.0)):  # fmt: skip
        count = rng.integers(0 if rng.random() < 0.25 else 1, most + 1)
        things += [(float(rng.uniform(near, far)), label) for _ in range(count)]
    painters = {BUILDING: building, TREE: tree, VEHICLE: vehicle, PERSON: person}
    for t, label in sorted(things):
        x, y, scale = rng.uniform(0.03, 0.97) * width, horizon + t * depth, 0.3 + 0.75 * t
        if road is not None:
            centre, half = (float(np.interp(t, np.linspace(0, 1, 25), values)) for values in road)
            if label == VEHICLE:
                x = centre + rng.uniform(-0.75, 0.75) * half
            elif label in (BUILDING, TREE) and abs(x - centre) < 1.1 * half:
                x = centre + np.sign(x - centre) * (half + rng.uniform(20, 70) * canvas.unit * scale)
        if label in (BUILDING, TREE):
            canvas.shade_ellipse(
                x + rng.uniform(-15, 15) * canvas.unit,
                y,
                55 * canvas.unit * scale,
                9 * canvas.unit * scale,
                rng.uniform(0.4, 0.75),
            )
        painters[label](canvas, x, y, scale)


def _light(canvas: Canvas) -> np.ndarray:
    """Light and camera: soft shadows, gradient, colour temperature, vignette, blur, sensor noise. Gives uint8 RGB."""
    rng, height, width = canvas.rng, canvas.height, canvas.width
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = 1 + rng.uniform(-0.22, 0.22) * x + rng.uniform(-0.12, 0.12) * y
    light = light - rng.uniform(0, 0.22) * (x * x + y * y)
    if rng.random() < 0.5:
        patches = value_noise(rng, height, width, 60 * canvas.unit)
        light = light * (1 - rng.uniform(0.15, 0.45) * np.clip(4 * (patches - rng.uniform(0, 0.4)), 0, 1))
    warmth, tint = rng.uniform(-0.12, 0.12), rng.uniform(-0.04, 0.04)
    gain = np.array([1 + warmth, 1 + tint, 1 - warmth], np.float32) * np.float32(rng.uniform(0.65, 1.15))
    image = canvas.image * light[:, :, None].astype(np.float32) * gain
    image += np.float32(rng.uniform(0, 14))
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.85) * max(canvas.unit, 0.5))
    # Uniform noise: four times as fast to draw as Gaussian, and the same to a network.
    image += np.float32(rng.uniform(4, 20)) * (rng.random((height, width, 1), dtype=np.float32) - 0.5)
    image += np.float32(rng.uniform(2, 14)) * (rng.random((height, width, 3), dtype=np.float32) - 0.5)
    return cv2.convertScaleAbs(np.maximum(image, 0))
