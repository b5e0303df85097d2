"""Where the two images of a pair lie on disk. Pairs are matched by name, never by order.

rain100         norain-N.png with rain-N.png in the same folder or in rainy/ (official Rain100H/L,
                old release)
two-folders     one folder of rainy and one of clean images, named as in `RAINY` and `CLEAN`
                (several rainy images may belong to a clean one whose name is their beginning)
side-by-side    one wide image per pair; `order` says which half is clean
list            a text file with a line per pair: the rainy and the clean file, separated by a
                space, below the folder of the list (SPA-Data)
cityscapes      rainy images in the folders of cities; the clean ones lie in `leftImg8bit` in place
                of `leftImg8bit_rain` (RainCityscapes); clean images without rain are left out
masked          as two-folders, and mask/NAME.png for every rainy image: white where the ground
                truth is known; only scoring uses it
photographs     rainy images without ground truth, which have no pairs; see `list_in_order`
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from config.schema import Folders, Layout, Order
from data.files import PairFiles, PairList
from utils.errors import UserError
from utils.image import SUFFIXES, image_names, list_images

RAINY = ("rainy", "rain", "input", "rainy_image")
CLEAN = ("norain", "clean", "gt", "groundtruth", "ground_truth", "target")
PREFIX = re.compile(r"^(no)?rain-")
SUFFIX = re.compile(r"(?<=\d)(x2|_in|_rain|_?gt|_clean)$", re.IGNORECASE)
CITYSCAPES = ("leftImg8bit_rain", "leftImg8bit")

Row = tuple[str, str, str]  # name of a pair, rainy file, clean file


def find_pairs(
    folder: Path,
    layout: Layout,
    order: Order = "clean-rainy",
    unpaired: list[Path] | None = None,
) -> PairList:
    """List the pairs of a folder in the natural order of their names, or those of a list.

    Args:
        folder: the root of a training or test set, or the file of a list.
        layout: see the module docstring.
        order: order of the halves of side-by-side images, left to right.
        unpaired: list to which unpaired images are appended; None makes them an error.

    Raises:
        UserError: the folder is missing or empty, two images have the same name, an image is
            unpaired, or a line of a list does not name two files.
    """
    if layout == "photographs":
        raise UserError(f"{folder} has no ground truth: only eval.py takes --layout photographs")
    if layout == "list":
        return PairList(_read_list(folder))
    if layout == "side-by-side":
        rows = [(_stem(file), file, file) for file in _by_key(image_names(folder)).values()]
    elif layout in ("two-folders", "masked"):
        rainy, clean = (
            image_names(_subfolder(folder, names), recursive=True) for names in (RAINY, CLEAN)
        )
        rows = _match(rainy, clean, unpaired)
    elif layout == "cityscapes":
        rows = _match(*_of_cities(folder), unpaired)
    else:
        files = image_names(folder)
        clean = [file for file in files if _stem(file).startswith("norain-")]
        rainy = [file for file in files if _stem(file).startswith("rain-")]
        if not clean:
            raise UserError(f"no norain-N.png in {folder}: expected the official Rain100 names")
        rows = _match(rainy or image_names(folder / "rainy"), clean, unpaired)
    rows.sort(key=lambda row: _natural(row[0]))
    masks = folder / "mask" if layout == "masked" else None
    if masks is not None:
        missing = [name for name, _, _ in rows if not (masks / f"{name}.png").is_file()]
        if missing:
            raise UserError(
                f"{masks} has no mask for {len(missing)} of {len(rows)} images: expected "
                f"{missing[0]}.png"
            )
    return PairList(rows, order if layout == "side-by-side" else None, masks)


def test_sets(data: Folders) -> dict[str, Path]:
    """The folders of the test sets of a dataset by name; "" names the only one."""
    if data.test_folder is None:
        return {}
    return {name: data.test_folder / name for name in data.test_sets} or {"": data.test_folder}


def find_test_pairs(data: Folders) -> PairList:
    """List the pairs of all test sets. If there are several, a name is SET/NAME.

    Raises:
        UserError: see `find_pairs`; the dataset has no test set.
    """
    sets = {
        name: find_pairs(folder, data.layout, data.order)
        for name, folder in test_sets(data).items()
    }
    if not sets:
        raise UserError(f"{data.dataset} has no test set: give --test-folder")
    if "" in sets:
        return sets[""]
    rows = (
        (f"{title}/{name}", rainy, clean)
        for title, files in sets.items()
        for name, rainy, clean in files.rows()
    )
    return PairList(rows, next(iter(sets.values())).order)


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


def _of_cities(folder: Path) -> tuple[list[str], list[str]]:
    """The rainy images of all cities, and the clean images of the same scenes."""
    if CITYSCAPES[0] not in folder.parts:
        raise UserError(f"expected a folder in {CITYSCAPES[0]}, got {folder}: give that of a split")
    parts = [CITYSCAPES[1] if part == CITYSCAPES[0] else part for part in folder.parts]
    rainy = image_names(folder, recursive=True)
    scenes = {_stem(file).partition("_rain")[0] for file in rainy}
    clean = image_names(Path(*parts), recursive=True)
    return rainy, [file for file in clean if _stem(file) in scenes]


def _read_list(file: Path) -> Iterator[Row]:
    """The pairs of a list, in its order.

    Their names are those of the rainy files, with their folders if two have the same name.
    """
    if not file.is_file():
        raise UserError(f"no list {file}: expected a text file with a line `RAINY CLEAN` per pair")
    lines = file.read_text("utf-8", "surrogateescape").splitlines()
    pairs = []
    for number, line in enumerate(lines, 1):
        if len(words := line.split()) not in (0, 2):
            raise UserError(
                f"line {number} of {file} has {len(words)} words: expected a rainy and a clean "
                "file, whose names have no spaces"
            )
        pairs += [words] * bool(words)
    if not pairs:
        raise UserError(f"{file} names no pairs: expected a line `RAINY CLEAN` for each")
    folder = str(file.parent)
    if not (place := Path(_below(folder, pairs[0][0]))).exists():
        raise UserError(f"no file {place}, which {file} names: move the list to its data")
    stems = [_stem(rainy) for rainy, _ in pairs]
    if len(set(stems)) < len(stems):
        stems = [_stem(re.sub(r"[\\/]", "-", rainy.lstrip("./"))) for rainy, _ in pairs]
    if len(set(stems)) < len(stems):
        twice = Counter(stems).most_common(1)[0][0]
        raise UserError(f"{file} names the rainy image {twice} twice: keep one line of it")
    for stem, (rainy, clean) in zip(stems, pairs, strict=True):
        yield stem, _below(folder, rainy), _below(folder, clean)


def _below(folder: str, path: str) -> str:
    """A path of a list; a slash in front means the folder of the list, as in SPA-Data's test set.

    A path that is absolute and exists stays as it is.
    """
    inside = f"{folder}/{path.removeprefix('./').lstrip('/')}"
    return path if path.startswith("/") and not Path(inside).exists() else inside


def match_names(
    rainy: Iterable[Path], clean: Iterable[Path], unpaired: list[Path] | None = None
) -> list[PairFiles]:
    """Pair two lists of files by name; `unpaired` as in `find_pairs`.

    Raises:
        UserError: an image is unpaired, or two images of one list have the same name.
    """
    return list(PairList(_match(map(str, rainy), map(str, clean), unpaired)))


def find_partners(images: Sequence[Path], others: Iterable[Path]) -> list[PairFiles]:
    """Pair every image of one scene with its clean one; the other clean images are left out.

    Args:
        images: rainy or derained.
        others: clean; or rainy, of the same names.

    Raises:
        UserError: see `match_names`.
    """
    alone: list[Path] = []
    pairs = match_names(images, others, alone)
    _refuse(sorted(set(alone).intersection(images)))
    return pairs


def with_ground_truth(derained: Sequence[Path], listed: Iterable[PairFiles]) -> list[PairFiles]:
    """Pair derained images with the clean images of the pairs whose rainy image has their name.

    Raises:
        UserError: see `match_names`.
    """
    truth = {files.rainy: files.clean for files in listed}
    return [files._replace(clean=truth[files.clean]) for files in find_partners(derained, [*truth])]


def ground_truths(folder: Path) -> list[Path]:
    """The clean images of `images_in`; those of a Rain100 folder are its norain-N.png.

    Raises:
        UserError: there are none.
    """
    files = images_in(folder)
    return [f for f in files if f.name.startswith("norain-")] or files


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, or those of the folders in it if it holds none itself.

    Raises:
        UserError: there are none.
    """
    flat = folder.is_dir() and any(f.suffix.lower() in SUFFIXES for f in folder.iterdir())
    return list_images(folder, recursive=not flat)


def _match(
    rainy: Iterable[str], clean: Iterable[str], unpaired: list[Path] | None = None
) -> list[Row]:
    rainy_by_key, clean_by_key = _by_key(rainy), _by_key(clean)
    if rainy_by_key.keys().isdisjoint(clean_by_key):
        partners = _beginnings(rainy_by_key, clean_by_key)
    else:
        partners = {key: clean_by_key[key] for key in rainy_by_key if key in clean_by_key}
    used = set(partners.values())
    alone = [file for key, file in rainy_by_key.items() if key not in partners]
    alone += [file for file in clean_by_key.values() if file not in used]
    if unpaired is not None:
        unpaired += map(Path, alone)
    else:
        _refuse(list(map(Path, alone)))
    return [
        (_stem(file), file, partners[key]) for key, file in rainy_by_key.items() if key in partners
    ]


def _beginnings(rainy: dict[str, str], clean: dict[str, str]) -> dict[str, str]:
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
    return partners


def _refuse(unmatched: Sequence[Path]) -> None:
    if unmatched:
        names = ", ".join(f.name for f in unmatched[:3])
        more = f" and {len(unmatched) - 3} more" if len(unmatched) > 3 else ""
        raise UserError(
            f"{len(unmatched)} images without a partner of the same name: {names}{more}"
        )


def _by_key(files: Iterable[str]) -> dict[str, str]:
    """Files by the common part of the names of a pair.

    rain-7, norain-7, 7x2, 7_in, 7_GT and 7gt all give 7.
    """
    found: dict[str, str] = {}
    for file in files:
        key = PREFIX.sub("", _stem(file))
        if not key[-1:].isdecimal() or key[-2:].lower() == "x2":  # spares most names a search
            key = SUFFIX.sub("", key)
        other = found.setdefault(key, file)
        if other is not file:
            raise UserError(f"{other} and {Path(file).name} have the same name: keep one of them")
    return found


def _stem(file: str) -> str:
    """`Path(file).stem` of an image."""
    name = os.path.basename(file)  # noqa: PTH119 a Path takes longer than all the rest
    return name.rpartition(".")[0] or name


def _natural(name: str) -> str:
    """Text whose order is that of the names with their numbers as numbers, 9 before 10."""
    key = re.sub(r"\d+", lambda number: _ordered(int(number[0])), name)
    return f"\U0010ffff{key}" if name[:1].isdecimal() and key[1] != "\0" else key


def _ordered(number: int) -> str:
    digits = str(number) if number else ""
    return f"\0{chr(len(digits))}{digits}"
