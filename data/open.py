"""Open the training, validation and test images that a config names."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple

from config.schema import Config, Folders, Synthetic
from data.layouts import FolderPairs, find_pairs, list_in_order
from data.pairs import Pairs, Selection
from data.patches import Patches
from data.rain_layers import LayerSource, extract_layers, hold_out, open_clean, open_layers
from data.synthetic import SyntheticPairs
from utils.errors import UserError
from utils.files import is_inside


class TrainingData(NamedTuple):
    """The data of a training run."""

    patches: Patches
    validation: Pairs
    test: Pairs  # empty without a test set
    left_out: int = 0  # training pairs that show a scene of a validation pair


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
    folder = data.train_folder if split == "train" else data.test_folder
    if folder is None:
        raise UserError(f"{data.dataset} has no {split} set: give --{split}-folder")
    files = find_pairs(folder, data.layout, data.order)
    matching = [pair for pair in files if fnmatchcase(pair.name, match)]
    if not matching:
        raise UserError(f"no pair of {folder} is named like {match!r}, but {files[0].name}")
    return FolderPairs(matching)


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
    pairs = open_pairs(data, "train")
    test_folder = data.test_folder if isinstance(data, Folders) else None
    if test_folder is not None and not test_folder.exists():
        raise UserError(
            f"no folder {test_folder}: check the path, or train without a test set: "
            "--test-folder None"
        )
    has_test = isinstance(data, Synthetic) or test_folder is not None
    test = open_pairs(data, "test") if has_test else ()
    if recipe.validation >= len(pairs):
        raise UserError(
            f"--validation must be below the number of training pairs, {len(pairs)}, got "
            f"{recipe.validation}"
        )
    validation, pairs = pairs[: recipe.validation], pairs[recipe.validation :]
    left_out = 0
    if shown := {pair.clean.tobytes() for pair in validation}:
        kept = [i for i, pair in enumerate(pairs) if pair.clean.tobytes() not in shown]
        left_out = len(pairs) - len(kept)
        pairs = Selection(pairs, kept) if left_out else pairs
    if not pairs:
        raise UserError(
            "all training pairs show scenes of the validation pairs: lower --validation"
        )

    scored = {pair.clean.tobytes() for pair in (*validation, *test)} if clean else set()
    images = [image for folder in clean for image in open_clean(folder, recipe.patch_size)]
    clean_scenes = [image for image in images if image.tobytes() not in scored]
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
    return TrainingData(patches, validation, test, left_out)
