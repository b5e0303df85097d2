"""The common type of all training and test data: a sequence of named image pairs."""

from collections.abc import Sequence
from typing import NamedTuple

from utils.image import Pixels


class Pair(NamedTuple):
    """A rainy image and its ground truth, RGB, uint8 [H, W, 3] each."""

    name: str
    rainy: Pixels
    clean: Pixels


Pairs = Sequence[Pair]
