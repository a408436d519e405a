"""What stands in a demo scene. Each function paints one object whose foot is at (x, y), ``scale`` 1 being nearest."""

from __future__ import annotations

import numpy as np

from segformer_edge.data.scene_canvas import Canvas
from segformer_edge.data.scene_textures import Texture, bricks, foliage, hsv, plain, planks, speckled

SKY, GROUND, ROAD, WATER, BUILDING, TREE, VEHICLE, PERSON = range(8)


def _facade(rng: np.random.Generator, scale: float, unit: float) -> Texture:
    colour = hsv(rng, (0, 360), (0.02, 0.5), (0.35, 0.92))
    kind = rng.integers(4)
    if kind == 0:
        return bricks(colour, max(3.0, 7 * scale * unit))
    if kind == 1:
        return planks(colour, max(3.0, 8 * scale * unit))
    return plain(colour) if kind == 2 else speckled(colour, 3, 0.08)


def building(canvas: Canvas, x: float, y: float, scale: float) -> None:
    """House or block with windows, sometimes a gable, a side wall and a door."""
    rng, size = canvas.rng, canvas.unit * scale
    tall = rng.random() < 0.45
    width = rng.uniform(60, 115) * size
    height = rng.uniform(125, 215) * size if tall else rng.uniform(65, 115) * size
    texture = _facade(rng, scale, canvas.unit)
    if rng.random() < 0.5:
        depth, sink, side = rng.uniform(18, 42) * size, rng.uniform(4, 12) * size, rng.choice([-1, 1])
        edge = x + side * width / 2
        wall = [(edge, y), (edge + side * depth, y - sink), (edge + side * depth, y - height + 1.5 * sink)]
        shade = plain(hsv(rng, (0, 360), (0.02, 0.3), (0.2, 0.6)))
        canvas.polygon(np.array([*wall, (edge, y - height)]), shade, BUILDING)
    canvas.rectangle(x - width / 2, y - height, width, height, texture, BUILDING)
    if not tall or rng.random() < 0.25:
        rise, over = rng.uniform(18, 48) * size, rng.uniform(0, 8) * size
        ridge = rng.uniform(0, 0.35) * width
        roof = [(x - width / 2 - over, y - height), (x - ridge, y - height - rise), (x + ridge, y - height - rise)]
        tiles = bricks(hsv(rng, (0, 50), (0.1, 0.6), (0.22, 0.7)), max(3.0, 6 * size))
        canvas.polygon(np.array([*roof, (x + width / 2 + over, y - height)]), tiles, BUILDING)
    glass = plain(hsv(rng, (190, 240), (0.0, 0.5), (0.1, 0.95)), 0.2)
    lit = plain(hsv(rng, (35, 55), (0.3, 0.7), (0.8, 1.0)), 0.1)
    columns, rows = rng.integers(2, 5), max(1, round(height / (34 * size)))
    pane_w, pane_h = width / columns, height / (rows + 0.4)
    fill_w, fill_h = rng.uniform(0.35, 0.7), rng.uniform(0.4, 0.7)
    for row in range(rows):
        for column in range(columns):
            left = x - width / 2 + (column + 0.5 - fill_w / 2) * pane_w
            top = y - height + (row + 0.7 - fill_h / 2) * pane_h
            canvas.rectangle(left, top, fill_w * pane_w, fill_h * pane_h, lit if rng.random() < 0.12 else glass, None)
    if rng.random() < 0.6:
        door = plain(hsv(rng, (0, 360), (0.2, 0.7), (0.15, 0.6)))
        canvas.rectangle(x + rng.uniform(-0.4, 0.2) * width, y - 26 * size, 13 * size, 26 * size, door, None)


def tree(canvas: Canvas, x: float, y: float, scale: float) -> None:
    """Broadleaf tree, conifer or bush; trunk included in the class."""
    rng, size = canvas.rng, canvas.unit * scale
    autumn = rng.random() < 0.2
    colour = hsv(rng, (15, 55), (0.4, 0.8), (0.35, 0.75)) if autumn else hsv(rng, (70, 150), (0.2, 0.7), (0.2, 0.6))
    leaves = foliage(colour, max(2.0, rng.uniform(3, 5) * size))
    bark = speckled(hsv(rng, (15, 40), (0.1, 0.5), (0.15, 0.45)), 2, 0.2)
    kind = rng.random()
    if kind < 0.15:
        for _ in range(3):
            canvas.ellipse(
                x + rng.uniform(-16, 16) * size,
                y - 11 * size,
                rng.uniform(16, 26) * size,
                rng.uniform(14, 20) * size,
                leaves,
                TREE,
                0.12,
            )
        return
    height, trunk = rng.uniform(95, 165) * size, rng.uniform(9, 14) * size
    canvas.rectangle(x - trunk / 2, y - 0.5 * height, trunk, 0.5 * height, bark, TREE)
    if kind < 0.45:
        spread, tiers = rng.uniform(0.2, 0.3) * height, rng.integers(2, 5)
        for tier in range(tiers):
            foot = y - (0.14 + 0.6 * tier / tiers) * height
            half, top = spread * (1 - 0.6 * tier / tiers), y - height * (0.55 + 0.45 * (tier + 1) / tiers)
            canvas.polygon(np.array([(x - half, foot), (x, top), (x + half, foot)]), leaves, TREE)
        return
    radius = rng.uniform(0.2, 0.28) * height
    for _ in range(rng.integers(3, 7)):
        canvas.ellipse(
            x + rng.uniform(-0.7, 0.7) * radius,
            y - 0.66 * height + rng.uniform(-0.7, 0.6) * radius,
            rng.uniform(0.6, 1.0) * radius,
            rng.uniform(0.55, 0.9) * radius,
            leaves,
            TREE,
            0.14,
        )


def vehicle(canvas: Canvas, x: float, y: float, scale: float) -> None:
    """Car from the side, car from behind, or van; colours of any hue, greys included."""
    rng, size = canvas.rng, canvas.unit * scale
    paint = plain(hsv(rng, (0, 360), (0.0, 0.85), (0.15, 0.95)), 0.1)
    tyre = plain(hsv(rng, (0, 360), (0, 0.1), (0.05, 0.2)))
    glass = plain(hsv(rng, (190, 230), (0.05, 0.4), (0.15, 0.8)), 0.25)
    metal = plain(hsv(rng, (0, 360), (0, 0.1), (0.5, 0.9)))
    canvas.shade_ellipse(x, y, 62 * size, 11 * size, 0.45)
    kind = rng.random()
    if kind < 0.4:
        length, flip = rng.uniform(88, 112) * size, rng.choice([-1, 1])
        outline = np.array([(-0.5, -8), (-0.5, -22), (-0.46, -26), (-0.26, -29), (-0.12, -44), (0.22, -44),
                            (0.38, -29), (0.48, -26), (0.5, -8)])  # fmt: skip
        pane = np.array([(-0.2, -29), (-0.1, -41), (0.03, -41), (0.03, -29)])
        rear_pane = np.array([(0.07, -29), (0.07, -41), (0.2, -41), (0.3, -29)])
        stretch = np.array([flip * length, size])
        for shape, fill, label in ((outline, paint, VEHICLE), (pane, glass, None), (rear_pane, glass, None)):
            canvas.polygon(shape * stretch + (x, y), fill, label)
        for side in (-0.3, 0.3):
            canvas.ellipse(x + side * length, y - 8.5 * size, 9.5 * size, 9.5 * size, tyre, VEHICLE)
            canvas.ellipse(x + side * length, y - 8.5 * size, 4.5 * size, 4.5 * size, metal, VEHICLE)
        return
    van = kind > 0.7
    half, height = rng.uniform(26, 33) * size, (rng.uniform(62, 84) if van else rng.uniform(44, 52)) * size
    for side in (-1, 1):
        canvas.rectangle(x + side * 0.72 * half - 6 * size, y - 12 * size, 12 * size, 12 * size, tyre, VEHICLE)
    taper = 0.94 if van else 0.72
    body = [(-1, -6 * size), (-1, -0.55 * height), (-taper, -height), (taper, -height), (1, -0.55 * height)]
    canvas.polygon(np.array([*body, (1, -6 * size)]) * (half, 1) + (x, y), paint, VEHICLE)
    window = [(-0.78, -0.58 * height), (-0.85 * taper, -0.9 * height), (0.85 * taper, -0.9 * height)]
    canvas.polygon(np.array([*window, (0.78, -0.58 * height)]) * (half, 1) + (x, y), glass, None)
    lamp = plain(hsv(rng, (0, 55), (0.1, 0.95), (0.7, 1.0)))
    for side in (-1, 1):
        canvas.rectangle(x + side * 0.78 * half - 4 * size, y - 0.48 * height, 8 * size, 6 * size, lamp, None)
    canvas.rectangle(x - 8 * size, y - 0.3 * height, 16 * size, 5 * size, metal, None)


def person(canvas: Canvas, x: float, y: float, scale: float) -> None:
    """A standing or walking figure: head, coat, arms, legs; solid enough not to be thin."""
    rng, size = canvas.rng, canvas.unit * scale * rng_between(canvas.rng, 0.92, 1.15)
    skin = plain(hsv(rng, (12, 30), (0.25, 0.6), (0.3, 0.92)))
    coat = plain(hsv(rng, (0, 360), (0.05, 0.85), (0.12, 0.95)), 0.15)
    trousers = plain(hsv(rng, (0, 360), (0.0, 0.5), (0.08, 0.7)), 0.15)
    hair = plain(hsv(rng, (10, 45), (0.1, 0.7), (0.08, 0.7)))
    canvas.shade_ellipse(x, y, 20 * size, 5 * size, 0.5)
    stride = rng.uniform(0, 7)
    for side in (-1, 1):
        foot = side * (6 + stride)
        leg = np.array([(0, -42), (side * 12, -42), (foot + side * 6, 0), (foot - side * 6, 0)])
        canvas.polygon(leg * size + (x, y), trousers, PERSON)
    swing = rng.uniform(0, 6)
    arms = np.array([(-13, -76), (13, -76), (20 + swing, -42), (12, -40), (13, -34), (-13, -34), (-12, -40),
                     (-20 - swing, -42)])  # fmt: skip
    canvas.polygon(arms * size + (x, y), coat, PERSON)
    canvas.ellipse(x, y - 86 * size, 9.5 * size, 11.5 * size, skin, PERSON)
    canvas.polygon(
        np.array([(-10, -87), (-8, -98), (0, -101), (8, -98), (10, -87), (0, -92)]) * size + (x, y), hair, PERSON
    )


def rng_between(rng: np.random.Generator, low: float, high: float) -> float:
    """A uniform draw as a plain float."""
    return float(rng.uniform(low, high))
