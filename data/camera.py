"""Camera degradations, applied alike to both images of a pair.

A network trained on sharp, noise-free pairs mistakes the noise and JPEG blocks of a photograph for
rain. Each degradation is applied to the rainy and the clean patch alike, so the network learns to
keep it.
"""

import cv2
import numpy as np

from config.schema import Camera
from utils.image import Pixels

BLOCK = 8  # side of a JPEG block


def photograph(
    rainy: Pixels, clean: Pixels, camera: Camera, random: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Degrade both patches, uint8 [H, W, 3], in the same way; returns the same type and shape."""
    if camera == Camera():
        return rainy, clean
    both: list[Pixels] = [rainy.astype(np.float32), clean.astype(np.float32)]
    if camera.blur:
        sigma = random.uniform(0, camera.blur)
        if sigma > 0.2:  # a narrower Gaussian changes less than rounding
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
        top, left = random.integers(0, BLOCK, 2)  # random offset of the block grid
        stored = [_compress(x, quality, int(top), int(left)) for x in stored]
    return stored[0], stored[1]


def _compress(pixels: Pixels, quality: int, top: int, left: int) -> Pixels:
    """Encode and decode as JPEG, with the block grid shifted by `top` and `left` pixels."""
    framed = cv2.copyMakeBorder(pixels, top, 0, left, 0, cv2.BORDER_REFLECT_101)
    _, data = cv2.imencode(".jpg", framed[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[top:, left:, ::-1]
