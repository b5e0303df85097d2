"""The common type of all training and test data: a sequence of named image pairs."""

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

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
        # Not a list of objects, of which every loading process would get its own copy.
        self.pairs = pairs
        self.indices = indices if isinstance(indices, range) else array("q", indices)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def streams(self) -> bool:
        """Whether pairs are decoded when they are used."""
        return streams(self.pairs)

    @property
    def names(self) -> list[str]:
        """The name of every pair."""
        names = names_of(self.pairs)
        return [names[index] for index in self.indices]

    @property
    def sizes(self) -> NDArray[np.int32]:
        """Height and width of every pair, [N, 2]."""
        return sizes_of(self.pairs)[np.array(self.indices, np.int64)]

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> "Selection": ...
    def __getitem__(self, index: int | slice) -> "Pair | Selection":
        if isinstance(index, slice):
            return Selection(self.pairs, self.indices[index])
        return self.pairs[self.indices[index]]


def streams(pairs: Pairs) -> bool:
    """Whether pairs are decoded when they are used: all of them do not fit in memory."""
    return bool(getattr(pairs, "streams", False))


def sizes_of(pairs: Pairs) -> NDArray[np.int32]:
    """Height and width of every pair, [N, 2], without decoding pairs on disk."""
    known: Any = getattr(pairs, "sizes", None)
    if known is None:
        known = [pair.clean.shape[:2] for pair in pairs]
    return np.asarray(known, np.int32).reshape(-1, 2)


def names_of(pairs: Pairs) -> list[str]:
    """The name of every pair, without decoding pairs on disk."""
    known: Any = getattr(pairs, "names", None)
    return [pair.name for pair in pairs] if known is None else list(known)


def fingerprint(pairs: Pairs) -> str:
    """SHA-256 of the names, lengths and dates of the files, or of the pixels of other pairs."""
    known: Any = getattr(pairs, "fingerprint", None)
    if known is None:
        pixels = hashlib.sha256()
        for pair in pairs:
            pixels.update(pair.rainy.tobytes() + pair.clean.tobytes())
        known = pixels.hexdigest()
    return str(known)


def smaller_than(pairs: Pairs, side: int) -> Pair | None:
    """The first pair with a side below `side` pixels, if there is one."""
    small = np.flatnonzero((sizes_of(pairs) < side).any(axis=1))
    return pairs[int(small[0])] if small.size else None
