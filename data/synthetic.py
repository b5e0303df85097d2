"""Rain without a download: photographs bundled with scikit-image under modelled streaks.

Pair i is a function of (seed, i), made in NumPy and rounded to 8 bits, so that it is the same on
every machine. Training and test scenes are disjoint.

A falling drop is a line on the film: the longer the exposure, the longer and the fainter. Near
drops are long, wide and out of focus, far drops short, thin and many (Garg and Nayar, "Vision and
rain", IJCV 2007). A streak scatters the light of the sky, so it brightens what lies behind it, and
dark places more than bright ones.
"""

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple, overload

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from config.schema import Heaviness
from data.pairs import Pair
from utils.image import Pixels

Split = Literal["train", "test"]

# Colour scenes lead the tests, for they are what a person judges. None needs a download.
SCENES: dict[Split, tuple[str, ...]] = {
    "train": (
        "astronaut",
        "rocket",
        "motorcycle",
        "camera",
        "coins",
        "brick",
        "grass",
        "gravel",
        "retina",
        "immunohistochemistry",
    ),
    "test": ("chelsea", "coffee"),
}


class Rain(NamedTuple):
    """One kind of rain; a pair of numbers is a range drawn from once an image."""

    density: tuple[float, float]  # streaks for every 1000 pixels
    length: tuple[float, float]  # of the nearest streaks, in pixels
    width: tuple[float, float]  # of the nearest streaks, standard deviation in pixels
    opacity: tuple[float, float]  # of the nearest streaks, in (0, 1]
    angle: tuple[float, float]  # from the vertical, in degrees
    veil: tuple[float, float]  # share of grey light from rain too far to see, in [0, 1]


RAINS = {
    "light": Rain((5, 12), (20, 50), (0.6, 1.1), (0.5, 0.9), (-25, 25), (0.0, 0.03)),
    "heavy": Rain((16, 32), (24, 70), (0.7, 1.3), (0.6, 1.0), (-35, 35), (0.05, 0.15)),
}
LAYERS = 4  # of depth: layer d lies d + 1 times as far as the nearest
SPREAD = 2.5  # degrees by which single streaks leave the common direction


class SyntheticPairs(Sequence[Pair]):
    """Photographs under modelled rain.

    Args:
        split: "train" or "test", which have no scene in common.
        count: number of pairs.
        size: side of the square images in pixels, at most 300.
        heaviness: "light", "heavy", or "mixed" for alternating.
        seed: any integer >= 0.
    """

    def __init__(
        self, split: Split, count: int, size: int, heaviness: Heaviness = "light", seed: int = 0
    ) -> None:
        self.pairs = [_make_pair(split, i, size, heaviness, seed) for i in range(count)]

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        return self.pairs[index]


def _make_pair(split: Split, index: int, size: int, heaviness: Heaviness, seed: int) -> Pair:
    random = np.random.default_rng([seed, 2 if split == "train" else 3, index])
    scene = SCENES[split][index % len(SCENES[split])]
    clean = _crop(_photograph(scene), size, random)
    kind = heaviness if heaviness != "mixed" else ("light", "heavy")[index % 2]
    return Pair(f"{index:03d}-{scene}-{kind}", add_rain(clean, RAINS[kind], random), clean)


@cache
def _photograph(scene: str) -> Pixels:
    """A bundled photograph as [H, W, 3] uint8."""
    if scene == "motorcycle":
        image = skimage.data.stereo_motorcycle()[0]
    else:
        image = getattr(skimage.data, scene)()
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]


def _crop(photograph: Pixels, size: int, random: np.random.Generator) -> Pixels:
    """A random square of the photograph, from `size` up to its shorter side, shrunk to `size`."""
    h, w = photograph.shape[:2]
    side = int(random.integers(size, min(h, w), endpoint=True))
    top = int(random.integers(0, h - side, endpoint=True))
    left = int(random.integers(0, w - side, endpoint=True))
    square = photograph[top : top + side, left : left + side]
    square = square[:, ::-1] if random.random() < 0.5 else square
    resized = cv2.resize(np.ascontiguousarray(square), (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(resized)


def add_rain(clean: Pixels, rain: Rain, random: np.random.Generator) -> Pixels:
    """Put one kind of rain over an image, uint8 [H, W, 3] -> uint8 [H, W, 3]."""
    opacity = _streaks(clean.shape[0], clean.shape[1], rain, random)[..., None]
    light = random.uniform(0.85, 1.0)  # the sky's, as streaks and veil scatter it
    veil = random.uniform(*rain.veil)
    scene = clean / 255.0
    scene = (1 - veil) * scene + veil * 0.8 * light
    rainy = (1 - opacity) * scene + opacity * np.maximum(scene, light)
    return np.rint(255 * rainy).clip(0, 255).astype(np.uint8)


def _streaks(
    height: int, width: int, rain: Rain, random: np.random.Generator
) -> NDArray[np.float64]:
    """Opacity of all streaks together, [H, W] in [0, 1]."""
    density, length, thickness, opacity, angle = (random.uniform(*r) for r in rain[:5])
    clear = np.ones((height, width))
    for distance in range(1, LAYERS + 1):
        # A layer's share of the drops grows with its distance; its streaks shrink.
        count = density * height * width / 1000 * distance / sum(range(1, LAYERS + 1))
        for _ in range(random.poisson(count)):
            streak = _Streak(
                x=random.uniform(-0.1 * width, 1.1 * width),
                y=random.uniform(-0.1 * height, 1.1 * height),
                length=length / distance**0.7 * random.uniform(0.6, 1.4),
                sigma=max(0.45, thickness / distance**0.5),
                angle=np.deg2rad(angle + SPREAD * random.standard_normal()),
                opacity=opacity / distance**0.4 * random.uniform(0.3, 1.0),
            )
            _draw(clear, streak)
    return 1 - clear


class _Streak(NamedTuple):
    x: float
    y: float
    length: float
    sigma: float
    angle: float
    opacity: float


def _draw(clear: NDArray[np.float64], streak: _Streak) -> None:
    """Multiply what a streak lets through into `clear`, inside its bounding box."""
    h, w = clear.shape
    dx, dy = np.sin(streak.angle), np.cos(streak.angle)
    reach_x = abs(dx) * streak.length / 2 + 3 * streak.sigma
    reach_y = abs(dy) * streak.length / 2 + 3 * streak.sigma
    left, right = max(0, int(streak.x - reach_x)), min(w, int(streak.x + reach_x) + 2)
    top, bottom = max(0, int(streak.y - reach_y)), min(h, int(streak.y + reach_y) + 2)
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right) - streak.x
    y = np.arange(top, bottom)[:, None] - streak.y
    along = (x * dx + y * dy) / (streak.length / 2)
    across = (x * dy - y * dx) / streak.sigma
    # The shutter opens and closes while the drop falls: both ends fade.
    fade = np.clip(1 - along**2, 0, None) ** 0.5
    clear[top:bottom, left:right] *= 1 - streak.opacity * fade * np.exp(-(across**2) / 2)
