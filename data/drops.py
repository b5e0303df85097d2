"""Rain near the camera: short bright drops and defocused discs.

With a short exposure a drop is seen as a short bar, about 3 by 10 pixels in a video of 640x480,
instead of a long streak. It shows the sky, so it brightens dark regions more than bright ones.
"""

import numpy as np

from utils.image import Pixels

AREA = 64 * 64  # pixels to which the numbers of drops refer
SPREAD = 3.0  # standard deviation of a drop's angle around the common one, degrees
WITH_DISCS = 0.3  # share of the images with discs


def draw_drops(scene: Pixels, direction: float, random: np.random.Generator) -> Pixels:
    """Add drops and sometimes discs to an image, uint8 [H, W, 3] -> uint8 [H, W, 3].

    Args:
        scene: image, with or without other rain.
        direction: in which the drops fall, degrees from the vertical, positive towards the lower
            right.
        random: generator of all random choices.
    """
    height, width = scene.shape[:2]
    clear = np.ones((height, width), np.float32)  # transmission of all drops together
    share = height * width / AREA
    thickness = random.uniform(2.5, 5)  # of the nearest drops
    ratio = random.uniform(2, 5)  # length to width
    opacity = random.uniform(0.3, 0.95)  # of the brightest drops
    soft, taper = random.uniform(1, 2), random.uniform(0.1, 0.5)
    for _ in range(1 + random.poisson(share * np.exp(random.uniform(0, np.log(20))))):
        near = random.beta(1, 2)  # most drops are far away: thin and faint
        wide = 1.5 + near * (thickness - 1.5)
        _drop(
            clear,
            random.uniform(0, (width, height)),
            (wide, wide * ratio * random.uniform(0.8, 1.2)),
            np.deg2rad(direction + SPREAD * random.standard_normal()),
            opacity * (0.25 + 0.75 * near) * random.uniform(0.6, 1),
            soft,
            taper,
        )
    if random.random() < WITH_DISCS:
        for _ in range(1 + random.poisson(share)):
            radius = np.exp(random.uniform(np.log(2), np.log(12)))
            rim = random.uniform(0, 0.5)
            _disc(
                clear,
                random.uniform(0, (width, height)),
                radius,
                rim,
                random.uniform(0.1, 0.5) / (1 + rim),
            )
    light = random.uniform(190, 255)
    image = scene.astype(np.float32)
    image += (1 - clear)[..., None] * np.maximum(light - image, 0)
    return np.asarray(np.rint(image), np.uint8)


def _box(
    clear: np.ndarray, centre: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of `clear` around a centre (x, y), and the coordinates of its pixels there."""
    (x, y), (height, width) = centre, clear.shape
    left, right = max(0, int(x - reach)), min(width, int(x + reach) + 2)
    top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 2)
    part = clear[top:bottom, left:right]
    return part, np.arange(left, right) - x, np.arange(top, bottom)[:, None] - y


def _drop(
    clear: np.ndarray,
    centre: np.ndarray,
    size: tuple[float, float],
    angle: float,
    opacity: float,
    soft: float,
    taper: float,
) -> None:
    """Multiply the transmission of a bar with soft edges and fading ends into `clear`."""
    width, length = size
    part, x, y = _box(clear, centre, length / 2 + 2)
    sin, cos = np.sin(angle), np.cos(angle)
    across = ((width / 2 - np.abs(x * cos - y * sin)) / soft + 0.5).clip(0, 1)
    fading = max(soft, taper * length)
    along = ((length / 2 - np.abs(x * sin + y * cos)) / fading + 0.5 * soft / fading).clip(0, 1)
    part *= 1 - opacity * across * along


def _disc(clear: np.ndarray, centre: np.ndarray, radius: float, rim: float, opacity: float) -> None:
    """Multiply the transmission of a disc with a soft, brighter rim into `clear`."""
    part, x, y = _box(clear, centre, radius + 2)
    distance = np.sqrt(x**2 + y**2)
    inside = ((radius - distance) / max(1, 0.2 * radius) + 0.5).clip(0, 1)
    part *= 1 - opacity * inside * (1 + rim * (distance / radius).clip(0, 1) ** 4)
