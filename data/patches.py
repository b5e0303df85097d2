"""Training patches: patch i is a function of (seed, i) and of nothing else.

So the number of workers, a restart and the order of requests never change what is trained on, and
there is no sampler or generator state to save.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from data.pairs import Pairs
from utils.errors import UserError
from utils.image import to_tensor


class PatchPair(NamedTuple):
    """Aligned patches, float32 [3, P, P] in [0, 1]."""

    rainy: Tensor
    clean: Tensor


class Patches(Dataset[PatchPair]):
    """An endless stream of random crops.

    Patches 0 to N-1 visit every pair once, N to 2N-1 again in another order, and so on.

    Args:
        pairs: N image pairs.
        size: side P of a patch in pixels.
        seed: any integer >= 0.
        augment: also flip and rotate by quarter turns, each of the eight with equal chance.

    Raises:
        UserError: a patch is larger than an image.
    """

    def __init__(self, pairs: Pairs, size: int, seed: int, augment: bool = False) -> None:
        for pair in pairs:
            h, w = pair.clean.shape[:2]
            if min(h, w) < size:
                raise UserError(
                    f"patches of {size}x{size} do not fit {pair.name} ({w}x{h} pixels): "
                    "lower --patch-size or remove the image"
                )
        self.pairs, self.size, self.seed, self.augment = pairs, size, seed, augment

    def __getitem__(self, index: int) -> PatchPair:
        """Patch number `index`, any integer >= 0."""
        round_, position = divmod(index, len(self.pairs))
        pair = self.pairs[int(_order(self.seed, round_, len(self.pairs))[position])]
        random = np.random.default_rng([self.seed, 1, index])
        h, w = pair.clean.shape[:2]
        top = random.integers(0, h - self.size, endpoint=True)
        left = random.integers(0, w - self.size, endpoint=True)
        mirrored, turns = random.integers(0, [2, 4]) if self.augment else (0, 0)

        def cut(image: np.ndarray) -> Tensor:
            patch = image[top : top + self.size, left : left + self.size]
            patch = np.rot90(patch[:, ::-1] if mirrored else patch, turns)
            return to_tensor(patch)

        return PatchPair(cut(pair.rainy), cut(pair.clean))


@lru_cache(maxsize=4)
def _order(seed: int, round_: int, count: int) -> np.ndarray:
    """The order in which a round visits the pairs."""
    return np.random.default_rng([seed, 0, round_]).permutation(count)
