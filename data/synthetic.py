"""Synthetic rain: photographs bundled with scikit-image, with modelled rain streaks.

Pair i depends only on (seed, i). It is computed in NumPy and rounded to 8 bits, so it is the same
on every machine. Training and test scenes are disjoint.

A falling drop appears as a streak. A longer exposure makes the streak longer and fainter. Near
drops give long, wide, out-of-focus streaks; far drops give many short, thin ones (Garg and Nayar,
"Vision and rain", IJCV 2007). A streak scatters light from the sky, so it brightens the background,
and dark regions more than bright ones.
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

# Only photographs that scikit-image ships without a download. The test scenes are in colour.
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


class RainModel(NamedTuple):
    """Parameters of one kind of rain: ranges from which a value is drawn once per image."""

    density: tuple[float, float]  # streaks per 1000 pixels
    length: tuple[float, float]  # of the nearest streaks, in pixels
    width: tuple[float, float]  # of the nearest streaks, standard deviation in pixels
    opacity: tuple[float, float]  # of the nearest streaks, in (0, 1]
    angle: tuple[float, float]  # from the vertical, degrees
    veil: tuple[float, float]  # opacity of the mist from distant rain, in [0, 1]


RAINS = {
    "light": RainModel((5, 12), (20, 50), (0.6, 1.1), (0.5, 0.9), (-25, 25), (0.0, 0.03)),
    "heavy": RainModel((16, 32), (24, 70), (0.7, 1.3), (0.6, 1.0), (-35, 35), (0.05, 0.15)),
}
DEPTH_LAYERS = 4  # layer d is d times as far away as the nearest, layer 1
ANGLE_SPREAD = 2.5  # standard deviation of a streak's angle around the common one, degrees


class SyntheticPairs(Sequence[Pair]):
    """Photographs with modelled rain.

    Args:
        split: "train" or "test"; they have no scene in common.
        count: number of pairs.
        size: side of the square images in pixels, at most 300.
        heaviness: "light", "heavy", or "mixed": both, for every scene in turn.
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
    turn, position = divmod(index, len(SCENES[split]))
    scene = SCENES[split][position]
    clean = _crop(_photograph(scene), size, random)
    kind = heaviness if heaviness != "mixed" else ("light", "heavy")[turn % 2]
    return Pair(f"{index:03d}-{scene}-{kind}", add_rain(clean, RAINS[kind], random), clean)


@cache
def _photograph(scene: str) -> Pixels:
    """A bundled photograph, uint8 [H, W, 3]."""
    if scene == "motorcycle":
        image = skimage.data.stereo_motorcycle()[0]
    else:
        image = getattr(skimage.data, scene)()
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]


def _crop(photograph: Pixels, size: int, random: np.random.Generator) -> Pixels:
    """A random square crop, with a side from `size` to the shorter side, resized to `size`."""
    h, w = photograph.shape[:2]
    side = int(random.integers(size, min(h, w), endpoint=True))
    top = int(random.integers(0, h - side, endpoint=True))
    left = int(random.integers(0, w - side, endpoint=True))
    square = photograph[top : top + side, left : left + side]
    square = square[:, ::-1] if random.random() < 0.5 else square
    resized = cv2.resize(np.ascontiguousarray(square), (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(resized)


def add_rain(clean: Pixels, rain: RainModel, random: np.random.Generator) -> Pixels:
    """Add rain to an image, uint8 [H, W, 3] -> uint8 [H, W, 3]."""
    opacity = _streaks(clean.shape[0], clean.shape[1], rain, random)[..., None]
    light = random.uniform(0.85, 1.0)  # sky light, scattered by streaks and veil
    veil = random.uniform(*rain.veil)
    scene = clean / 255.0
    scene = (1 - veil) * scene + veil * 0.8 * light
    rainy = (1 - opacity) * scene + opacity * np.maximum(scene, light)
    return np.rint(255 * rainy).clip(0, 255).astype(np.uint8)


def _streaks(
    height: int, width: int, rain: RainModel, random: np.random.Generator
) -> NDArray[np.float64]:
    """Combined opacity of all streaks, [H, W] in [0, 1]."""
    density, length, thickness, opacity, angle = (random.uniform(*r) for r in rain[:5])
    clear = np.ones((height, width))
    for distance in range(1, DEPTH_LAYERS + 1):
        # Farther layers have more streaks, and shorter ones.
        count = density * height * width / 1000 * distance / sum(range(1, DEPTH_LAYERS + 1))
        for _ in range(random.poisson(count)):
            streak = _Streak(
                x=random.uniform(-0.1 * width, 1.1 * width),
                y=random.uniform(-0.1 * height, 1.1 * height),
                length=length / distance**0.7 * random.uniform(0.6, 1.4),
                sigma=max(0.45, thickness / distance**0.5),
                angle=np.deg2rad(angle + ANGLE_SPREAD * random.standard_normal()),
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
    """Multiply the transmission of a streak into `clear`, within the bounding box of the streak."""
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
    # Both ends fade, because the drop moves while the shutter opens and closes.
    fade = np.clip(1 - along**2, 0, None) ** 0.5
    clear[top:bottom, left:right] *= 1 - streak.opacity * fade * np.exp(-(across**2) / 2)
