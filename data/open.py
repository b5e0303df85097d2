"""From the data section of a config to images."""

from typing import Literal, NamedTuple

from config.schema import Config, Folders, Synthetic
from data.camera import Camera
from data.layouts import FolderPairs, find_pairs
from data.pairs import Pairs
from data.patches import Patches
from data.rain_layers import Exchange, layers_of, open_clean, open_layers
from data.synthetic import SyntheticPairs
from utils.errors import UserError


class TrainingData(NamedTuple):
    """All images of a training run."""

    patches: Patches
    validation: Pairs
    test: Pairs


def open_pairs(data: Folders | Synthetic, split: Literal["train", "test"]) -> Pairs:
    """The training or test pairs that a config names.

    Raises:
        UserError: the dataset has no such pairs, or they cannot be read.
    """
    if isinstance(data, Synthetic):
        count = data.train_pairs if split == "train" else data.test_pairs
        return SyntheticPairs(split, count, data.image_size, data.heaviness)
    folder = data.train_folder if split == "train" else data.test_folder
    if folder is None:
        raise UserError("this dataset has no training set: train on another, score on this one")
    return FolderPairs(find_pairs(folder, data.layout, data.order))


def open_training(config: Config) -> TrainingData:
    """The patches, validation pairs and test pairs of a training run.

    A clean image of `--clean` that equals the ground truth of a scored pair is left out.

    Raises:
        UserError: the data cannot be used for this recipe.
    """
    data, recipe = config.data, config.training
    clean, layers = (data.clean, data.layers) if isinstance(data, Folders) else ((), ())
    if clean and not recipe.exchange + recipe.modelled:
        raise UserError("--clean images have no rain: set --exchange or --modelled")
    if layers and not recipe.exchange:
        raise UserError("--layers are for exchange: set it, as in --exchange 0.5")
    pairs, test = open_pairs(data, "train"), open_pairs(data, "test")
    if recipe.validation >= len(pairs):
        raise UserError(
            f"--validation {recipe.validation} leaves none of the {len(pairs)} training pairs"
        )
    validation, pairs = pairs[: recipe.validation], pairs[recipe.validation :]

    scored = {pair.clean.tobytes() for pair in (*validation, *test)} if clean else set()
    images = [image for folder in clean for image in open_clean(folder)]
    dry = [image for image in images if image.tobytes() not in scored]
    sources = []
    if recipe.exchange:
        sources = [layers_of(pairs), *(open_layers(folder) for folder in layers)]
    patches = Patches(
        pairs,
        recipe.patch_size,
        recipe.seed,
        recipe.augment,
        dry,
        Exchange(sources, recipe.exchange, recipe.modelled),
        Camera(recipe.blur, recipe.veil, recipe.noise, recipe.jpeg),
    )
    return TrainingData(patches, validation, test)
