"""The common type of all training and test data: a sequence of named image pairs."""

from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError
from utils.image import Pixels


class Pair(NamedTuple):
    """A rainy image and its ground truth, RGB, uint8 [H, W, 3] each."""

    name: str
    rainy: Pixels
    clean: Pixels
    mask: NDArray[np.bool_] | None = None  # [H, W], where the ground truth is known; None: all over


Pairs = Sequence[Pair]


def refuse_smaller(image: Pixels, side: int, name: object) -> None:
    """Refuse an image [H, W, ...] that patches of side x side pixels do not fit.

    Raises:
        UserError: it is too small; names the image.
    """
    height, width = image.shape[:2]
    if min(height, width) < side:
        raise UserError(
            f"patches of {side}x{side} do not fit {name} ({width}x{height} pixels): lower "
            "--patch-size or remove the image"
        )


class Selection(Sequence[Pair]):
    """Some of the pairs of another sequence, which stay undecoded until they are used."""

    def __init__(self, pairs: Pairs, indices: Sequence[int]) -> None:
        self.pairs, self.indices = pairs, indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> "Selection": ...
    def __getitem__(self, index: int | slice) -> "Pair | Selection":
        if isinstance(index, slice):
            return Selection(self.pairs, self.indices[index])
        return self.pairs[self.indices[index]]
