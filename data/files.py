"""The files of image pairs: listed in little memory, checked without decoding them, and read."""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from config.schema import Order
from data.headers import length_and_date, size_in_header
from data.pairs import Pair, Selection
from utils.errors import UserError
from utils.files import replacing
from utils.image import Pixels, read_image

T = TypeVar("T")

KEPT_BYTES = 2 * 2**30  # of the decoded images of a set that is kept in memory
KEPT_PAIRS = 4000
REMEMBERED = 10_000  # smallest set whose sizes are stored for the next start
THREADS = 8  # a drive answers several requests at once
CHUNK = 1000  # files per task of a thread


class PairFiles(NamedTuple):
    """The files of one pair; both paths are the same for a side-by-side image."""

    name: str
    rainy: Path
    clean: Path
    order: Order | None = None  # of the halves; only for side-by-side images
    mask: Path | None = None  # white where the ground truth is known


class PairList(Sequence[PairFiles]):
    """The files of many pairs in one block of memory.

    A list of paths takes ten times the memory. Loading processes would also copy it: a process
    that looks at a Python object counts its references in the object.

    Args:
        rows: the name, the rainy and the clean file of each pair.
        order: order of the halves of side-by-side images.
        masks: folder of the masks, NAME.png.
    """

    def __init__(
        self,
        rows: Iterable[tuple[str, str, str]],
        order: Order | None = None,
        masks: Path | None = None,
    ) -> None:
        text, ends = bytearray(), array("q", [0])
        for row in rows:
            text += os.fsencode("\0".join(row))
            ends.append(len(text))
        self.text, self.ends, self.order, self.masks = bytes(text), ends, order, masks

    def row(self, index: int) -> tuple[str, str, str]:
        """The name, the rainy and the clean file of pair `index`, at least 0."""
        start, end = self.ends[index], self.ends[index + 1]
        name, rainy, clean = os.fsdecode(self.text[start:end]).split("\0")
        return name, rainy, clean

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """The rows of all pairs."""
        return map(self.row, range(len(self)))

    def mask(self, name: str) -> Path | None:
        """The mask of the pair with this name, if there are masks."""
        return self.masks and self.masks / f"{name}.png"

    def matching(self, pattern: str) -> "PairList":
        """The pairs whose names match a pattern, as of a shell."""
        rows = (row for row in self.rows() if fnmatchcase(row[0], pattern))
        return PairList(rows, self.order, self.masks)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> PairFiles: ...
    @overload
    def __getitem__(self, index: slice) -> list[PairFiles]: ...
    def __getitem__(self, index: int | slice) -> PairFiles | list[PairFiles]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        name, rainy, clean = self.row(range(len(self))[index])
        return PairFiles(name, Path(rainy), Path(clean), self.order, self.mask(name))


def read_pair(files: PairFiles) -> Pair:
    """Decode one pair.

    Raises:
        UserError: an image is unreadable or not 8-bit, or the two differ in size.
    """
    if files.order is not None:
        both = read_rgb(files.rainy)
        w = both.shape[1]
        if w % 2:
            raise UserError(f"{files.rainy} is {w} pixels wide: side-by-side needs an even width")
        left, right = np.ascontiguousarray(both[:, : w // 2]), both[:, w // 2 :].copy()
        rainy, clean = (left, right) if files.order == "rainy-clean" else (right, left)
    else:
        rainy, clean = read_rgb(files.rainy), read_rgb(files.clean)
    if rainy.shape != clean.shape:
        sizes = (f"{image.shape[1]}x{image.shape[0]}" for image in (rainy, clean))
        raise UserError(
            f"{files.rainy} and {files.clean} differ in size: {' and '.join(sizes)} pixels"
        )
    mask = None if files.mask is None else _read_mask(files.mask, rainy)
    return Pair(files.name, rainy, clean, mask)


def _read_mask(path: Path, image: Pixels) -> NDArray[np.bool_]:
    mask = read_rgb(path)[..., 0] > 127
    if mask.shape != image.shape[:2] or not mask.any():
        height, width = image.shape[:2]
        raise UserError(f"{path}: expected a mask of {width}x{height} pixels that is not all black")
    return np.asarray(mask)


def read_rgb(path: Path) -> Pixels:
    """Decode an 8-bit image, uint8 [H, W, 3].

    Raises:
        UserError: the file is unreadable or not 8-bit.
    """
    pixels = read_image(path)
    if pixels.dtype != np.uint8:
        raise UserError(f"{path} has 16 bits per channel: expected an image of 8 bits per channel")
    return pixels[..., :3]


class FolderPairs(Sequence[Pair]):
    """Pairs on disk, decoded every time they are used.

    Args:
        files: of at least one pair.
        keep: decode all pairs now and keep them in memory, unless they exceed KEPT_BYTES or
            KEPT_PAIRS.

    Raises:
        UserError: see `read_pair`. Of pairs that are not kept, the beginnings and ends of the files
            are checked, and all of those that differ from a common PNG or JPEG.
    """

    def __init__(self, files: Sequence[PairFiles], keep: bool = False) -> None:
        listed = ((pair.name, str(pair.rainy), str(pair.clean)) for pair in files)
        self.files = files if isinstance(files, PairList) else PairList(listed, files[0].order)
        self.kept: list[Pair] | None = None
        if keep and len(files) <= KEPT_PAIRS:
            first = read_pair(files[0])
            if (first.rainy.nbytes + first.clean.nbytes) * len(files) <= KEPT_BYTES:
                with ThreadPoolExecutor() as pool:
                    self.kept = list(pool.map(read_pair, files))
        self.sizes = self._sizes()

    @property
    def streams(self) -> bool:
        """Whether pairs are decoded when they are used."""
        return self.kept is None

    @property
    def names(self) -> list[str]:
        """The name of every pair."""
        return [name for name, _, _ in self.files.rows()]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the names, lengths and dates of all files.

        Raises:
            UserError: a file is missing.
        """

        def describe(indices: range) -> bytes:
            names, numbers = [], array("q")
            for name, *files in map(self.files.row, indices):
                names.append(name)
                mask = self.files.mask(name)
                for file in (*files, *([] if mask is None else [str(mask)])):
                    try:
                        numbers.extend(length_and_date(file))
                    except OSError as error:
                        raise UserError(
                            f"cannot read {file}: {error.strerror}; check the data"
                        ) from None
            return os.fsencode("\0".join(names)) + numbers.tobytes()

        total = hashlib.sha256(f"{self.files.order}\n".encode())
        for part in _in_threads(describe, len(self)):
            total.update(part)
        return total.hexdigest()

    def _sizes(self) -> NDArray[np.int32]:
        """Height and width of every pair, [N, 2]; those of a large set are stored."""
        if self.kept is not None:
            return np.array([pair.clean.shape[:2] for pair in self.kept], np.int32)
        stored = _store(self.fingerprint) if len(self) >= REMEMBERED else None
        if stored is not None:
            with suppress(OSError, ValueError):
                sizes: NDArray[np.int32] = np.load(stored)
                if sizes.shape == (len(self), 2) and sizes.dtype == np.int32:
                    return sizes

        def sizes_of(indices: range) -> list[tuple[int, int]]:
            return [self._size(*self.files.row(index)) for index in indices]

        sizes = np.array(list(chain.from_iterable(_in_threads(sizes_of, len(self)))), np.int32)
        if stored is not None:
            with suppress(UserError), replacing(stored) as stream:
                np.save(stream, sizes)
        return sizes

    def _size(self, name: str, rainy: str, clean: str) -> tuple[int, int]:
        one = size_in_header(rainy)
        if self.files.order is not None:
            if one is not None and one[1] % 2 == 0:
                return one[0], one[1] // 2
        elif one is not None and one == size_in_header(clean):
            return one
        height, width, _ = read_pair(
            PairFiles(name, Path(rainy), Path(clean), self.files.order)
        ).clean.shape
        return height, width

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Selection: ...
    def __getitem__(self, index: int | slice) -> Pair | Selection:
        if isinstance(index, slice):
            return Selection(self, range(len(self))[index])
        return self.kept[index] if self.kept is not None else read_pair(self.files[index])


def _in_threads(function: Callable[[range], T], count: int) -> Iterator[T]:
    """The results of a function for 0 to count - 1, CHUNK numbers at a time, in order."""
    chunks = [range(i, min(count, i + CHUNK)) for i in range(0, count, CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(function, chunks)
        yield from tqdm(results, "checking files", len(chunks), False, disable=None, delay=2)


def _store(fingerprint: str) -> Path | None:
    """Where the sizes of a set are stored for the next start; None for a user without a home."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "jdnet" / f"sizes-{fingerprint[:32]}.npy"
