"""Where the two images of a pair lie on disk. Pairs are matched by name, never by order.

rain100         norain-N.png with rain-N.png in the same folder or in rainy/ (official Rain100H/L,
                old release)
two-folders     one folder of rainy and one of clean images, named as in `RAINY` and `CLEAN`
                (several rainy images may belong to a clean one whose name is their beginning)
side-by-side    one wide image per pair; `order` says which half is clean
masked          as two-folders, and a folder mask/ of grey images of the same names, white where the
                ground truth is known; only scoring uses them
photographs     rainy images without ground truth, which have no pairs; see `list_in_order`
"""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from config.schema import Layout, Order
from data.pairs import Pair, Selection
from utils.errors import UserError
from utils.image import Pixels, list_images, read_image

RAINY = ("rainy", "rain", "input", "rainy_image")
CLEAN = ("norain", "clean", "gt", "groundtruth", "ground_truth", "target")
CACHE_BYTES = 8 * 2**30  # fits both Rain100 releases; larger sets are decoded on demand


class PairFiles(NamedTuple):
    """The files of one pair; both paths are the same for a side-by-side image."""

    name: str
    rainy: Path
    clean: Path
    order: Order | None = None  # of the halves; only for side-by-side images
    mask: Path | None = None


def find_pairs(
    folder: Path,
    layout: Layout,
    order: Order = "clean-rainy",
    unpaired: list[Path] | None = None,
) -> list[PairFiles]:
    """List the pairs of a folder in the natural order of their names.

    Args:
        folder: the root of a training or test set.
        layout: see the module docstring.
        order: order of the halves of side-by-side images, left to right.
        unpaired: list to which unpaired images are appended; None makes them an error.

    Raises:
        UserError: the folder is missing or empty, two images have the same name, or an image is
            unpaired.
    """
    if layout == "photographs":
        raise UserError(f"{folder} has no ground truth: only eval.py takes --layout photographs")
    if layout == "side-by-side":
        pairs = [PairFiles(f.stem, f, f, order) for f in _by_key(list_images(folder)).values()]
    elif layout in ("two-folders", "masked"):
        rainy, clean = (list_images(_subfolder(folder, names)) for names in (RAINY, CLEAN))
        pairs = match_names(rainy, clean, unpaired)
        if layout == "masked":
            masks = {f.stem: f for f in list_images(folder / "mask")}
            if missing := [pair.name for pair in pairs if pair.name not in masks]:
                raise UserError(
                    f"{folder / 'mask'} has no mask for {len(missing)} of {len(pairs)} images: "
                    f"{', '.join(missing[:3])}"
                )
            pairs = [pair._replace(mask=masks[pair.name]) for pair in pairs]
    else:
        files = list_images(folder)
        clean = [f for f in files if f.name.startswith("norain-")]
        rainy = [f for f in files if f.name.startswith("rain-")]
        if not clean:
            raise UserError(f"no norain-N.png in {folder}: expected the official Rain100 names")
        pairs = match_names(rainy or list_images(folder / "rainy"), clean, unpaired)
    return sorted(pairs, key=lambda pair: _natural(pair.name))


def list_in_order(folder: Path) -> list[Path]:
    """List the images of a folder without ground truth, in natural order."""
    return sorted(list_images(folder), key=lambda f: _natural(f.stem))


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path:
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: check the path, see README's Data section")
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise UserError(f"{folder} has no subfolder named {' or '.join(names)}")


def match_names(
    rainy: Iterable[Path], clean: Iterable[Path], unpaired: list[Path] | None = None
) -> list[PairFiles]:
    """Pair two lists of files by name; `unpaired` as in `find_pairs`.

    Raises:
        UserError: an image is unpaired, or two images of one list have the same name.
    """
    rainy_by_key, clean_by_key = _by_key(rainy), _by_key(clean)
    if not rainy_by_key.keys() & clean_by_key.keys():
        return _match_beginnings(rainy_by_key, clean_by_key, unpaired)
    partners = {key: clean_by_key[key] for key in rainy_by_key if key in clean_by_key}
    return _matched(rainy_by_key, clean_by_key, partners, unpaired)


def _match_beginnings(
    rainy: dict[str, Path], clean: dict[str, Path], unpaired: list[Path] | None
) -> list[PairFiles]:
    """Several rainy images to one clean image, whose name is the beginning of theirs.

    901_1 ... 901_14 belong to 901 (Rain1400), and street_leftImg8bit_rain_alpha_0.01 to
    street_leftImg8bit (RainCityscapes).
    """
    partners = {}
    for key in rainy:
        ends = [i for i, letter in enumerate(key) if letter in "_-"]
        beginning = next((key[:end] for end in reversed(ends) if key[:end] in clean), None)
        if beginning is not None:
            partners[key] = clean[beginning]
    return _matched(rainy, clean, partners, unpaired)


def _matched(
    rainy: dict[str, Path],
    clean: dict[str, Path],
    partners: dict[str, Path],
    unpaired: list[Path] | None,
) -> list[PairFiles]:
    used = set(partners.values())
    unmatched = [f for key, f in rainy.items() if key not in partners]
    unmatched += [f for f in clean.values() if f not in used]
    if unpaired is not None:
        unpaired += unmatched
    elif unmatched:
        names = ", ".join(f.name for f in unmatched[:3])
        more = f" and {len(unmatched) - 3} more" if len(unmatched) > 3 else ""
        raise UserError(
            f"{len(unmatched)} images without a partner of the same name: {names}{more}"
        )
    return [PairFiles(rainy[key].stem, rainy[key], partner) for key, partner in partners.items()]


def pair_key(file: Path) -> str:
    """Common part of the names of a pair: rain-7, norain-7, 7x2, 7_in and 7_GT all give 7."""
    stem = re.sub(r"^(no)?rain-", "", file.stem)
    return re.sub(r"(?<=\d)(x2|_in|_rain|_gt|_clean)$", "", stem, flags=re.IGNORECASE)


def _by_key(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(pair_key(file), file)
        if other is not file:
            raise UserError(f"{other} and {file.name} have the same name: keep one of them")
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(n or 0), text) for n, text in re.findall(r"(\d+)|(\D+)", name)]


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
    """Pairs of a folder, decoded once and cached, or decoded on demand if they exceed CACHE_BYTES.

    Raises:
        UserError: see `read_pair`.
    """

    def __init__(self, files: Sequence[PairFiles]) -> None:
        self.files = list(files)
        self.cache: list[Pair] | None = None
        first = read_pair(self.files[0])
        if (first.rainy.nbytes + first.clean.nbytes) * len(self.files) <= CACHE_BYTES:
            with ThreadPoolExecutor() as pool:
                self.cache = list(pool.map(read_pair, self.files))

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Selection: ...
    def __getitem__(self, index: int | slice) -> Pair | Selection:
        if isinstance(index, slice):
            return Selection(self, range(len(self))[index])
        return self.cache[index] if self.cache is not None else read_pair(self.files[index])
