"""What every source of training and test data is: a sequence of named image pairs."""

from collections.abc import Sequence
from typing import NamedTuple

from utils.image import Pixels


class Pair(NamedTuple):
    """A rainy image and its ground truth, both uint8 [H, W, 3], RGB, of one size."""

    name: str
    rainy: Pixels
    clean: Pixels


Pairs = Sequence[Pair]
