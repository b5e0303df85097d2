"""Structures that look like rain and are not: bars, wires, grids and text.

They are drawn into the scene, so both images of a pair show them and the rain lies over them. A
network trained on scenes without them takes the thin upright bars of a gate for rain. Short strokes
are left out, because a bright one looks like a streak of rain.
"""

from collections.abc import Callable
from string import ascii_letters, digits
from typing import NamedTuple

import cv2
import numpy as np

from utils.image import Pixels

ALONG_THE_RAIN = 2 / 3  # share of the structures within SPREAD of the rain's direction
SPREAD = 10.0  # degrees
LETTERS = ascii_letters + digits + 8 * "Il1/|HNMT"  # more of those with strokes like rain


class _Shape(NamedTuple):
    """A structure, float32 [H, W] each."""

    cover: np.ndarray  # opacity, 0 to 1
    side: np.ndarray  # place across the nearest bar: -0.5 at one edge, 0.5 at the other


class _Axes(NamedTuple):
    """Coordinates of the pixels in pixels from the centre, float32 [H, W] each."""

    across: np.ndarray
    along: np.ndarray


def lighten(scene: Pixels, random: np.random.Generator) -> Pixels:
    """Blend a scene with a bright grey, like snow, a wall or the sky: uint8 [H, W, 3]."""
    grey, share = random.uniform(150, 255), random.uniform(0, 1)
    return np.asarray(np.rint(scene + share * (grey - scene)), np.uint8)


def draw_structures(scene: Pixels, direction: float, random: np.random.Generator) -> Pixels:
    """Draw one or two structures into a scene, uint8 [H, W, 3] -> uint8 [H, W, 3].

    Args:
        scene: image without rain.
        direction: of the rain over it, degrees from the vertical, positive towards the lower right.
        random: generator of all random choices.
    """
    canvas = scene.astype(np.float32)
    for _ in range(int(random.integers(1, 2, endpoint=True))):
        near = random.random() < ALONG_THE_RAIN
        angle = direction + random.uniform(-SPREAD, SPREAD) if near else random.uniform(-90, 90)
        axes = _axes(scene.shape[0], scene.shape[1], angle, random)
        kind = KINDS[int(random.integers(len(KINDS)))]
        canvas = _paint(canvas, kind(axes, random), axes.along, random)
    return np.asarray(np.rint(canvas.clip(0, 255)), np.uint8)


def _axes(height: int, width: int, angle: float, random: np.random.Generator) -> _Axes:
    """Coordinates across and along a direction, slightly distorted as by perspective."""
    x = np.arange(width, dtype=np.float32) - (width - 1) / 2
    y = np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2
    sin, cos = np.float32(np.sin(np.deg2rad(angle))), np.float32(np.cos(np.deg2rad(angle)))
    across, along = x * cos - y * sin, x * sin + y * cos
    fan, narrowing, bend = random.uniform(-1, 1, 3).astype(np.float32) * (0.25, 0.25, 0.06)
    side = np.float32(max(height, width))
    across = across * (1 + (fan * along + narrowing * across) / side) + bend * along**2 / side
    return _Axes(across.astype(np.float32), along)


def _paint(
    canvas: np.ndarray, shape: _Shape, along: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Paint a shape in one colour, shaded along it and across every bar."""
    height, width = shape.cover.shape
    source = random.random()
    if source < 0.6:  # grey, dark to bright
        colour = np.full(3, random.uniform(10, 250))
    elif source < 0.9:  # a darker or brighter colour of the scene
        place = canvas[int(random.integers(height)), int(random.integers(width))]
        colour = place * random.uniform(0.3, 1.3) + random.uniform(-20, 80)
    else:
        colour = random.uniform(10, 250, 3)
    shade = 1 + random.uniform(-0.4, 0.4) * along / max(height, width)
    shade = shade + random.uniform(-0.5, 0.5) * shape.side
    paint = shade[..., None] * colour.astype(np.float32)
    cover = random.uniform(0.5, 1) * shape.cover[..., None]
    return np.asarray(canvas + cover * (paint - canvas), np.float32)


def _bar(distance: np.ndarray, width: float, soft: float) -> np.ndarray:
    """Cover of a bar of a width, whose edges are `soft` pixels wide."""
    return np.asarray(((width / 2 - np.abs(distance)) / soft + 0.5).clip(0, 1))


def _bars(axes: _Axes, random: np.random.Generator) -> _Shape:
    """A set of parallel bars with regular spacing, often with an end, and a rail there."""
    period = np.exp(random.uniform(np.log(4), np.log(24)))
    width = float(np.exp(random.uniform(0, np.log(min(6, 0.7 * period)))))
    soft = random.uniform(1, 2)
    distance = (axes.across + random.uniform(0, period)) % period - period / 2
    cover = _bar(distance, width, soft)
    reach = max(axes.along.shape) / 2
    if random.random() < 0.4:
        end = random.uniform(-reach, reach)
        cover = cover * ((axes.along - end) / soft + 0.5).clip(0, 1)
        if random.random() < 0.7:
            cover = np.maximum(cover, _bar(axes.along - end, width * random.uniform(1, 1.5), soft))
    if random.random() < 0.3:  # not over the whole patch
        cover = cover * (np.abs(axes.across - random.uniform(-reach, reach)) < 2.5 * period)
    return _Shape(cover, (distance / width).clip(-0.5, 0.5))


def _grid(axes: _Axes, random: np.random.Generator) -> _Shape:
    """Two crossing sets of bars."""
    one, two = _bars(axes, random), _bars(_Axes(axes.along, axes.across), random)
    return _Shape(np.maximum(one.cover, two.cover), one.side)


def _lines(axes: _Axes, random: np.random.Generator) -> _Shape:
    """One to four lines of one thickness across the whole patch: poles, wires, edges."""
    width, soft = np.exp(random.uniform(0, np.log(6))), random.uniform(1, 2)
    cover, side = np.zeros((2, *axes.along.shape), np.float32)
    reach = max(axes.along.shape) / 2
    for _ in range(int(random.integers(1, 4, endpoint=True))):
        turn = np.float32(np.tan(np.deg2rad(random.uniform(-4, 4))))
        distance = axes.across - np.float32(random.uniform(-reach, reach)) + turn * axes.along
        bar = _bar(distance, width, soft)
        side = np.where(bar > cover, distance / width, side)
        cover = np.maximum(cover, bar)
    return _Shape(cover, side.clip(-0.5, 0.5))


def _text(axes: _Axes, random: np.random.Generator) -> _Shape:
    """A line of letters whose strokes lie along the direction."""
    word = "".join(LETTERS[i] for i in random.integers(0, len(LETTERS), 12))
    scale, thickness = random.uniform(0.4, 1.5), int(random.integers(1, 3, endpoint=True))
    font = int(random.choice((cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX)))
    size = int(1.5 * max(axes.along.shape))
    page = np.zeros((size, size), np.uint8)
    start = (int(random.integers(-20, 20)), int(random.integers(size // 3, size)))
    cv2.putText(page, word, start, font, scale, 255, thickness, cv2.LINE_AA)
    turned = cv2.remap(page, axes.across + size / 2, axes.along + size / 2, cv2.INTER_LINEAR)
    cover = np.asarray(turned, np.float32) / 255
    return _Shape(cover, np.zeros_like(cover))


KINDS: tuple[Callable[[_Axes, np.random.Generator], _Shape], ...] = (
    *(_bars, _bars, _bars, _bars),
    *(_lines, _lines),
    *(_grid, _grid, _text),
)
