"""What a camera does to both images of a pair, so that a network meets photographs in training.

A network trained on sharp, noiseless pairs takes the noise and the JPEG blocks of a photograph for
rain. Every change here is made to the rainy and the clean patch alike: the network learns to leave
it.
"""

from typing import NamedTuple

import cv2
import numpy as np

from utils.image import Pixels

BLOCK = 8  # side of a JPEG block


class Camera(NamedTuple):
    """The largest change of each kind; 0 leaves it out."""

    blur: float = 0.0  # standard deviation of a Gaussian, pixels
    veil: float = 0.0  # share of grey light, as from mist, in [0, 1)
    noise: float = 0.0  # standard deviation, levels of 255
    jpeg: int = 0  # lowest quality, 1 to 100


def photograph(
    rainy: Pixels, clean: Pixels, camera: Camera, random: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Both patches as a camera would store them, uint8 [H, W, 3] each.

    The amount of each change is drawn between none and the largest.
    """
    both: list[Pixels] = [rainy.astype(np.float32), clean.astype(np.float32)]
    if camera.blur:
        sigma = random.uniform(0, camera.blur)
        if sigma > 0.2:  # a narrower Gaussian moves less than rounding does
            both = [np.asarray(cv2.GaussianBlur(x, (0, 0), sigma)) for x in both]
    if camera.veil:
        veil, light = random.uniform(0, camera.veil), random.uniform(128, 255)
        both = [(1 - veil) * x + veil * light for x in both]
    if camera.noise:
        noise = random.uniform(0, camera.noise) * random.standard_normal(clean.shape)
        both = [x + noise for x in both]
    stored = [np.rint(x).clip(0, 255).astype(np.uint8) for x in both]
    if camera.jpeg:
        quality = int(random.integers(camera.jpeg, 100, endpoint=True))
        top, left = random.integers(0, BLOCK, 2)  # a patch begins anywhere in a block
        stored = [_compress(x, quality, int(top), int(left)) for x in stored]
    return stored[0], stored[1]


def _compress(pixels: Pixels, quality: int, top: int, left: int) -> Pixels:
    """Encode and decode as JPEG, the first block cut off by `top` and `left` pixels."""
    framed = cv2.copyMakeBorder(pixels, top, 0, left, 0, cv2.BORDER_REFLECT_101)
    _, data = cv2.imencode(".jpg", framed[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[top:, left:, ::-1]
