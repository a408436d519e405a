"""Textures and colours of the demo scenes: each function gives float32 RGB in 0..255, shape (height, width, 3)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

#: A texture: (rng, height, width) -> float32 (height, width, 3).
Texture = Callable[[np.random.Generator, int, int], np.ndarray]


def hsv(
    rng: np.random.Generator, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    """A random RGB colour (float32, 0..255); hue in degrees, saturation and value in 0..1."""
    h, s, v = rng.uniform(*hue) % 360 / 60, rng.uniform(*saturation), rng.uniform(*value)
    k = (np.array([5.0, 3.0, 1.0]) + h) % 6
    return (255 * (v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1))).astype(np.float32)


def value_noise(rng: np.random.Generator, height: int, width: int, cell: float, stretch: float = 1.0) -> np.ndarray:
    """Smooth noise in -1..1, shape (height, width); ``cell`` is its grain in pixels, ``stretch`` widens it."""
    rows, columns = max(2, round(height / cell) + 1), max(2, round(width / (cell * stretch)) + 1)
    grid = rng.random((rows, columns), dtype=np.float32) * 2 - 1
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)


def _tinted(colour: np.ndarray, shade: np.ndarray) -> np.ndarray:
    """``colour`` times a (height, width) shade around 1."""
    return colour[None, None, :] * shade[:, :, None]


def plain(colour: np.ndarray, roughness: float = 0.06) -> Texture:
    """Plaster or paint: faint soft noise."""

    def draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        return _tinted(colour, 1 + roughness * value_noise(rng, height, width, 9))

    return draw


def speckled(colour: np.ndarray, grain: float, strength: float, stretch: float = 1.0) -> Texture:
    """Grass, gravel, asphalt: two octaves of noise."""

    def draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        shade = 1 + strength * value_noise(rng, height, width, grain, stretch)
        shade += 0.6 * strength * value_noise(rng, height, width, grain * 5, stretch)
        return _tinted(colour, shade)

    return draw


def foliage(colour: np.ndarray, grain: float) -> Texture:
    """Leaves: strong clumps, lit from above."""

    def draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        shade = 0.92 + 0.34 * value_noise(rng, height, width, grain) + 0.2 * value_noise(rng, height, width, grain * 4)
        shade += np.linspace(0.16, -0.2, height, dtype=np.float32)[:, None]
        return _tinted(colour, shade)

    return draw


def bricks(colour: np.ndarray, course: float) -> Texture:
    """Brick courses ``course`` pixels high with lighter or darker mortar."""

    def draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        mortar = rng.choice([0.78, 1.22])
        y = np.arange(height, dtype=np.float32)[:, None] / course
        x = np.arange(width, dtype=np.float32)[None, :] / (course * 2.2) + 0.5 * (np.floor(y) % 2)
        joint = ((y % 1) < 0.25) | ((x % 1) < 0.14)
        shade = 1 + 0.12 * value_noise(rng, height, width, course)
        return _tinted(colour, np.where(joint, shade * mortar, shade).astype(np.float32))

    return draw


def planks(colour: np.ndarray, board: float) -> Texture:
    """Horizontal boards ``board`` pixels high."""

    def draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        y = np.arange(height, dtype=np.float32)[:, None] / board
        shade = np.where((y % 1) < 0.22, 0.8, 1.0) + 0.07 * value_noise(rng, height, width, 3, 5)
        return _tinted(colour, shade.astype(np.float32))

    return draw


def ripples(colour: np.ndarray, sky: np.ndarray, length: float) -> Texture:
    """Water: long horizontal ripples that mirror the sky more towards the far shore."""

    def draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        mirror = np.linspace(0.65, 0.25, height, dtype=np.float32)[:, None]
        mirror = mirror + 0.3 * value_noise(rng, height, width, 2.5, length)
        mirror = np.clip(mirror + 0.12 * value_noise(rng, height, width, 7, length), 0, 1)[:, :, None]
        return (colour * (1 - mirror) + sky * mirror).astype(np.float32)

    return draw
