"""Rain as a layer that can be added to any scene.

In Rain100 a rainy image is exactly min(255, clean + s), with one grey layer s >= 0 for all three
channels. So the layer of one pair over the clean image of another is a pair of the same kind.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.layouts import FolderPairs, find_pairs, find_rainy, read_rgb
from data.pairs import Pair, Pairs
from data.synthetic import RAINS, add_rain
from utils.errors import UserError
from utils.image import Pixels, list_images

GAIN = (0.5, 2.0)  # range of the factor on a rendered layer
MOST = 3  # rendered layers that may add up
GREY_TOLERANCE = 2  # largest difference between the channels of a rendered layer, in levels


class Layers(NamedTuple):
    """Rain layers of one source, uint8 [H, W] each, black where there is no rain."""

    images: Sequence[Pixels]
    rendered: bool = False  # rendered alone: scaled at random, and one to three are added


class Exchange(NamedTuple):
    """Which rain a training patch carries: its own, that of another pair, or modelled rain.

    Each source of layers is drawn equally often.
    """

    sources: Sequence[Layers] = ()
    exchanged: float = 0.0  # share of the patches under a layer of `sources`
    modelled: float = 0.0  # share of the patches under modelled rain


def rain_layer(pair: Pair) -> Pixels | None:
    """The layer s of a pair with rainy = min(255, clean + s): uint8 [H, W].

    None where no such layer exists: the rain is not additive, or not grey.
    """
    difference = pair.rainy.astype(np.int16) - pair.clean
    layer = difference.max(axis=2)
    if difference.min() < 0 or not np.array_equal(_add(pair.clean, layer), pair.rainy):
        return None
    return np.asarray(layer, np.uint8)


def layers_of(pairs: Pairs) -> Layers:
    """The layers of all pairs.

    Raises:
        UserError: the rain of a pair is not additive and grey.
    """
    layers = []
    for pair in pairs:
        layer = rain_layer(pair)
        if layer is None:
            raise UserError(
                f"cannot exchange the rain of {pair.name}: it is not one grey layer added to the "
                "clean image, as in Rain100; set --exchange 0"
            )
        layers.append(layer)
    return Layers(layers)


def open_layers(folder: Path) -> Layers:
    """The layers of the Rain100 pairs in a folder, or else its images as rendered layers.

    Raises:
        UserError: the folder is missing or empty, or an image is no rain layer.
    """
    if _holds_pairs(folder):
        return layers_of(FolderPairs(find_pairs(folder, "rain100")))
    layers = []
    for file in find_rainy(folder):
        image = read_rgb(file)
        if np.ptp(image.astype(np.int16), axis=2).max() > GREY_TOLERANCE:
            raise UserError(f"{file} is no rain layer: expected a grey image of rain on black")
        layers.append(image[..., 0].copy())
    return Layers(layers, rendered=True)


def open_clean(folder: Path) -> list[Pixels]:
    """The clean images of the Rain100 pairs in a folder, or else all its images, uint8 [H, W, 3].

    Raises:
        UserError: the folder is missing or empty, or an image cannot be read.
    """
    if _holds_pairs(folder):
        return [pair.clean for pair in FolderPairs(find_pairs(folder, "rain100"))]
    return [read_rgb(file) for file in find_rainy(folder)]


def _holds_pairs(folder: Path) -> bool:
    return any(file.name.startswith("norain-") for file in list_images(folder))


def exchange_rain(
    rainy: Pixels | None, clean: Pixels, exchange: Exchange, random: np.random.Generator
) -> Pixels:
    """The rainy patch for a clean one: `rainy` itself, or the same scene under other rain.

    Args:
        rainy: uint8 [H, W, 3], None for a scene that has no rain of its own.
        clean: uint8 [H, W, 3].
        exchange: shares and sources.
        random: decides everything.
    """
    drawn = random.random()
    if rainy is not None and drawn >= exchange.exchanged + exchange.modelled:
        return rainy
    if exchange.sources and drawn >= exchange.modelled:
        source = exchange.sources[int(random.integers(len(exchange.sources)))]
        return _add(clean, _draw_layer(source, clean.shape[0], clean.shape[1], random))
    return add_rain(clean, RAINS[("light", "heavy")[random.integers(2)]], random)


def _draw_layer(source: Layers, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A piece of rain, [height, width], mirrored half the time."""
    total = np.zeros((height, width))
    for _ in range(int(random.integers(1, MOST, endpoint=True)) if source.rendered else 1):
        layer = source.images[int(random.integers(len(source.images)))]
        top = random.integers(0, layer.shape[0] - height, endpoint=True)
        left = random.integers(0, layer.shape[1] - width, endpoint=True)
        piece = layer[top : top + height, left : left + width]
        gain = np.exp(random.uniform(*np.log(GAIN))) if source.rendered else 1.0
        total += gain * (piece[:, ::-1] if random.integers(2) else piece)
    return total


def _add(clean: Pixels, layer: np.ndarray) -> Pixels:
    """min(255, clean + layer), rounded: uint8 [H, W, 3]."""
    return np.asarray(np.minimum(255, np.rint(clean + layer[..., None])), np.uint8)
