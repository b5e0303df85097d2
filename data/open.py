"""Open the training, validation and test images that a config names."""

import hashlib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple

from config.schema import Config, Folders, Synthetic
from data.files import FolderPairs
from data.headers import length_and_date
from data.layouts import find_pairs, find_test_pairs, list_in_order
from data.pairs import Pairs, Selection
from data.patches import Patches
from data.rain_layers import LayerSource, extract_layers, hold_out, open_clean, open_layers
from data.synthetic import SyntheticPairs
from utils.errors import UserError
from utils.files import is_inside
from utils.image import Pixels


class TrainingData(NamedTuple):
    """The data of a training run."""

    patches: Patches
    validation: Pairs
    test: Pairs  # empty without a test set
    left_out: int = 0  # training pairs that show a scene of a validation pair
    fingerprint: str | None = None  # of the files of the training set; None if it is in memory


def open_pairs(
    data: Folders | Synthetic, split: Literal["train", "test"], match: str = "*"
) -> Pairs:
    """Open the training or test pairs of a config whose names match a pattern, as of a shell.

    Raises:
        UserError: the dataset has no such pairs, or they cannot be read.
    """
    if isinstance(data, Synthetic):
        if match != "*":
            raise UserError("--match needs images on disk: give a preset, for example rain100l")
        count = data.train_pairs if split == "train" else data.test_pairs
        return SyntheticPairs(split, count, data.image_size, data.heaviness)
    if split == "test":
        files = find_test_pairs(data)
    elif data.train_folder is None:
        raise UserError(f"{data.dataset} has no train set: give --train-folder")
    else:
        files = find_pairs(data.train_folder, data.layout, data.order)
    matching = files if match == "*" else files.matching(match)
    if not matching:
        raise UserError(f"no pair is named like {match!r}: the first is {files[0].name}")
    return FolderPairs(matching, keep=split == "train")


def open_photographs(data: Folders, match: str = "*") -> list[Path]:
    """List the test images of a dataset without ground truth whose names match a pattern.

    Raises:
        UserError: there are none.
    """
    if data.test_folder is None:
        raise UserError(f"{data.dataset} has no test set: give --test-folder")
    files = [f for f in list_in_order(data.test_folder) if fnmatchcase(f.stem, match)]
    if not files:
        raise UserError(f"no image of {data.test_folder} is named like {match!r}")
    return files


def refuse_output(data: Folders | Synthetic, output: Path) -> None:
    """Refuse an output folder whose pictures would lie among the images of a dataset.

    Raises:
        UserError: a folder of images is, or lies in, the folder of the strips or of the report.
    """
    if isinstance(data, Folders):
        folders = (data.train_folder, data.test_folder, *data.clean, *data.layers)
        for folder in (folder for folder in folders if folder is not None):
            for written in (output / "strips", output / "report"):
                if is_inside(folder / "image", written):
                    raise UserError(
                        f"{written} would be written to, and holds the images of {folder}, which "
                        "are never overwritten: choose another output folder"
                    )


def open_training(config: Config) -> TrainingData:
    """Open the patches, validation pairs and test pairs of a training run.

    Training pairs that show a scene of a validation pair are excluded. So are images in `--clean`
    that equal the ground truth of a validation or test pair.
    `--validation N` also holds out N layers of every `--layers` folder. They become further
    validation pairs, over the scenes of the first ones.

    Raises:
        UserError: the data cannot be read or does not fit the recipe.
    """
    data, recipe, rain = config.data, config.training, config.rain
    clean, layers = (data.clean, data.layers) if isinstance(data, Folders) else ((), ())
    if clean and not rain.exchange + rain.modelled:
        raise UserError("--clean images have no rain: set --exchange or --modelled")
    if layers and not rain.exchange:
        raise UserError("--layers needs --exchange, for example --exchange 0.5")
    everything = open_pairs(data, "train")
    test_folder = data.test_folder if isinstance(data, Folders) else None
    if test_folder is not None and not test_folder.exists():
        raise UserError(
            f"no folder {test_folder}: check the path, or train without a test set: "
            "--test-folder None"
        )
    has_test = isinstance(data, Synthetic) or test_folder is not None
    test = open_pairs(data, "test") if has_test else ()
    if recipe.validation >= len(everything):
        raise UserError(
            f"--validation must be below the number of training pairs, {len(everything)}, got "
            f"{recipe.validation}"
        )
    validation, pairs = everything[: recipe.validation], everything[recipe.validation :]
    fingerprint = None
    if isinstance(everything, FolderPairs) and everything.streams:
        fingerprint = everything.fingerprint
    left_out = 0
    if validation:
        kept = _other_scenes(everything, recipe.validation)
        left_out = len(pairs) - len(kept)
        pairs = Selection(everything, kept) if left_out else pairs
    if not pairs:
        raise UserError(
            "all training pairs show scenes of the validation pairs: lower --validation"
        )

    scored = {_digest(p.clean) for part in (validation, test) for p in part} if clean else set()
    images = [image for folder in clean for image in open_clean(folder, recipe.patch_size)]
    clean_scenes = [image for image in images if _digest(image) not in scored]
    sources: list[LayerSource] = []
    if rain.exchange:
        sources = [extract_layers(pairs)]
        scenes, validation = validation, list(validation)
        for folder in layers:
            source, held = hold_out(
                open_layers(folder), recipe.validation, folder.name, scenes, rain
            )
            sources.append(source)
            validation += held
    patches = Patches(
        pairs,
        recipe.patch_size,
        recipe.seed,
        recipe.augment,
        clean_scenes,
        sources,
        rain,
        config.camera,
    )
    return TrainingData(patches, validation, test, left_out, fingerprint)


def _other_scenes(pairs: Pairs, count: int) -> list[int]:
    """Indices of the pairs that show no scene of the first `count` pairs.

    Of pairs that stream from disk, the clean files are compared, not their pixels.
    """
    if not isinstance(pairs, FolderPairs) or not pairs.streams:
        shown = {pair.clean.tobytes() for pair in pairs[:count]}
        return [i for i in range(count, len(pairs)) if pairs[i].clean.tobytes() not in shown]
    files = [clean for _, _, clean in pairs.files.rows()]
    contents = {Path(file).read_bytes() for file in set(files[:count])}
    lengths = set(map(len, contents))
    same = {
        file
        for file in set(files)
        if length_and_date(file)[0] in lengths and Path(file).read_bytes() in contents
    }
    return [i for i in range(count, len(files)) if files[i] not in same]


def _digest(image: Pixels) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()
