"""Training patches: patch i is a function of (seed, i) and of nothing else.

So the number of workers, a restart and the order of requests never change what is trained on, and
there is no sampler or generator state to save.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from config.schema import Augmentation
from data.camera import Camera, photograph
from data.pairs import Pairs
from data.rain_layers import Exchange, exchange_rain
from utils.errors import UserError
from utils.image import Pixels, to_tensor


class PatchPair(NamedTuple):
    """Aligned patches, float32 [3, P, P] in [0, 1]."""

    rainy: Tensor
    clean: Tensor


class Patches(Dataset[PatchPair]):
    """An endless stream of random crops.

    Patches 0 to N-1 visit every scene once, N to 2N-1 again in another order, and so on.

    Args:
        pairs: image pairs.
        size: side P of a patch in pixels.
        seed: any integer >= 0.
        augment: "none"; "flip" mirrors half of the patches; "eight" also turns by quarters, each of
            the eight with equal chance; "jitter" cuts up to a quarter more or less and scales it to
            size, mirrors, and turns by up to 30 degrees (DCSFN).
        dry: scenes without rain, uint8 [H, W, 3] each, that join those of the pairs; their rain
            comes from `exchange`.
        exchange: which patches carry other rain than their own.
        camera: what is done to both images of every patch.

    Raises:
        UserError: a patch is larger than an image or a rain layer.
    """

    def __init__(
        self,
        pairs: Pairs,
        size: int,
        seed: int,
        augment: Augmentation = "none",
        dry: Sequence[Pixels] = (),
        exchange: Exchange | None = None,
        camera: Camera | None = None,
    ) -> None:
        exchange, camera = exchange or Exchange(), camera or Camera()
        named = [(pair.name, pair.clean.shape) for pair in pairs]
        named += [("a clean image", image.shape) for image in dry]
        named += [("a rain layer", i.shape) for source in exchange.sources for i in source.images]
        for name, (h, w, *_) in named:
            if min(h, w) < size:
                raise UserError(
                    f"patches of {size}x{size} do not fit {name} ({w}x{h} pixels): "
                    "lower --patch-size or remove the image"
                )
        self.pairs, self.size, self.seed, self.augment = pairs, size, seed, augment
        self.dry, self.exchange, self.camera = dry, exchange, camera
        self.scenes = len(pairs) + len(dry)

    def describe(self) -> str:
        """What is trained on, in words."""
        dry = f" and {len(self.dry)} clean images" if self.dry else ""
        return f"{len(self.pairs)} pairs{dry}"

    def __getitem__(self, index: int) -> PatchPair:
        """Patch number `index`, any integer >= 0."""
        round_, position = divmod(index, self.scenes)
        scene = int(_order(self.seed, round_, self.scenes)[position])
        if scene < len(self.pairs):
            _, rainy, clean = self.pairs[scene]
        else:
            rainy, clean = None, self.dry[scene - len(self.pairs)]
        random = np.random.default_rng([self.seed, 1, index])
        size = np.array([self.size, self.size])
        if self.augment == "jitter":
            size = size + random.integers(-(self.size // 4), self.size // 4, 2, endpoint=True)
        height, width = np.minimum(size, clean.shape[:2])
        top = random.integers(0, clean.shape[0] - height, endpoint=True)
        left = random.integers(0, clean.shape[1] - width, endpoint=True)
        mirrored, turns = (0, 0) if self.augment == "none" else random.integers(0, [2, 4])
        angle = random.uniform(-30, 30) if self.augment == "jitter" else 0.0

        def cut(image: Pixels) -> Pixels:
            return image[top : top + height, left : left + width]

        def finish(patch: Pixels) -> Tensor:
            patch = patch[:, ::-1] if mirrored else patch
            if self.augment == "eight":
                patch = np.rot90(patch, turns)
            if self.augment == "jitter":
                patch = _turn(patch, self.size, angle)
            return to_tensor(patch)

        # Streams of their own: with neither, a patch is the same as before there were any.
        random = np.random.default_rng([self.seed, 2, index])
        background = cut(clean)
        own = None if rainy is None else cut(rainy)
        patch = exchange_rain(own, background, self.exchange, random)
        patch, background = photograph(
            patch, background, self.camera, np.random.default_rng([self.seed, 3, index])
        )
        return PatchPair(finish(patch), finish(background))


def _turn(patch: Pixels, size: int, angle: float) -> Pixels:
    """Scale a patch to a square and turn it about its middle, degrees; black where nothing is."""
    square = cv2.resize(np.ascontiguousarray(patch), (size, size))
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, 1.0)
    return np.asarray(cv2.warpAffine(square, matrix, (size, size)))


@lru_cache(maxsize=4)
def _order(seed: int, round_: int, count: int) -> np.ndarray:
    """The order in which a round visits the pairs."""
    return np.random.default_rng([seed, 0, round_]).permutation(count)
