"""The common type of all training and test data: a sequence of named image pairs."""

from collections.abc import Sequence
from typing import NamedTuple, overload

from utils.image import Pixels


class Pair(NamedTuple):
    """A rainy image and its ground truth, RGB, uint8 [H, W, 3] each."""

    name: str
    rainy: Pixels
    clean: Pixels


Pairs = Sequence[Pair]


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
