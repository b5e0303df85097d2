"""Training patches. Patch i depends only on (seed, i).

The number of workers, a restart and the order of requests therefore do not change the patches, and
there is no sampler or generator state to save.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from config.schema import Augmentation, Camera, Rain
from data.camera import photograph
from data.pairs import Pairs, refuse_smaller, smaller_than
from data.rain_layers import LayerSource, make_patch
from utils.image import Pixels, to_tensor


class PatchPair(NamedTuple):
    """Aligned patches, float32 [3, P, P] in [0, 1]."""

    rainy: Tensor
    clean: Tensor


class Patches(Dataset[PatchPair]):
    """An endless stream of random crops.

    With N scenes, patches 0 to N-1 visit every scene once, N to 2N-1 again in another order, and so
    on.

    Args:
        pairs: image pairs.
        size: side P of a patch in pixels.
        seed: any integer >= 0.
        augment: "none"; "flip" mirrors half of the patches; "eight" also rotates by multiples of 90
            degrees, with all eight variants equally likely; "jitter" varies the sides of the crop
            by up to a quarter, resizes it to P, mirrors, and rotates by up to 30 degrees (DCSFN).
        clean_scenes: additional scenes without rain, uint8 [H, W, 3] each; they always get other
            rain.
        sources: rain layers for other rain.
        rain: which patches get other rain, and which; structures, drops, and dry patches.
        camera: degradations of both images of every patch.

    Raises:
        UserError: a patch is larger than an image.
    """

    def __init__(
        self,
        pairs: Pairs,
        size: int,
        seed: int,
        augment: Augmentation = "none",
        clean_scenes: Sequence[Pixels] = (),
        sources: Sequence[LayerSource] = (),
        rain: Rain = Rain(),
        camera: Camera = Camera(),
    ) -> None:
        if (small := smaller_than(pairs, size)) is not None:
            refuse_smaller(small.clean, size, small.name)
        for image in clean_scenes:
            refuse_smaller(image, size, "a clean image")
        self.pairs, self.size, self.seed, self.augment = pairs, size, seed, augment
        self.clean_scenes, self.sources = clean_scenes, sources
        self.rain, self.camera = rain, camera
        self.scenes = len(pairs) + len(clean_scenes)

    def describe(self) -> str:
        """Describe the scenes in words, for example "200 pairs and 50 clean images"."""
        extra = f" and {len(self.clean_scenes)} clean images" if self.clean_scenes else ""
        return f"{len(self.pairs)} pairs{extra}"

    def __getitem__(self, index: int) -> PatchPair:
        """Return patch `index`, any integer >= 0."""
        epoch, position = divmod(index, self.scenes)
        scene = int(_order(self.seed, epoch, self.scenes)[position])
        if scene < len(self.pairs):
            _, rainy, clean, _ = self.pairs[scene]
        else:
            rainy, clean = None, self.clean_scenes[scene - len(self.pairs)]
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
                patch = _rotate(patch, self.size, angle)
            return to_tensor(patch)

        # Rain and camera have their own random streams, so they do not change the crop.
        own = None if rainy is None else cut(rainy)
        patch, background = make_patch(own, cut(clean), self.sources, self.rain, self.seed, index)
        patch, background = photograph(
            patch, background, self.camera, np.random.default_rng([self.seed, 3, index])
        )
        return PatchPair(finish(patch), finish(background))


def _rotate(patch: Pixels, size: int, angle: float) -> Pixels:
    """Resize a patch to a square and rotate it about its centre, degrees; black outside."""
    square = cv2.resize(np.ascontiguousarray(patch), (size, size))
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, 1.0)
    return np.asarray(cv2.warpAffine(square, matrix, (size, size)))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch visits the scenes."""
    return np.random.default_rng([seed, 0, epoch]).permutation(count)
