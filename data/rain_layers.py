"""Rain layers that can be added to any scene.

A rainy image of Rain100 is exactly min(255, clean + s), where the grey layer s >= 0 is the same for
all three channels. Adding the layer of one pair to the clean image of another gives a valid new
pair.
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

GAIN_RANGE = (0.5, 2.0)  # random factor on a rendered layer
MAX_LAYERS = 3  # rendered layers that are summed
GREY_TOLERANCE = 2  # maximum difference between the channels of a rendered layer, in levels


class LayerSource(NamedTuple):
    """Rain layers from one source, uint8 [H, W] each, 0 where there is no rain."""

    images: Sequence[Pixels]
    rendered: bool = False  # rendered on black: randomly scaled, and one to MAX_LAYERS are summed


class RainExchange(NamedTuple):
    """Which rain a training patch gets: its own, a layer from `sources`, or modelled rain.

    All sources are equally likely, whatever their number of layers.
    """

    sources: Sequence[LayerSource] = ()
    exchanged: float = 0.0  # fraction of patches with a layer from `sources`
    modelled: float = 0.0  # fraction of patches with modelled rain


def rain_layer(pair: Pair) -> Pixels | None:
    """The layer s with rainy = min(255, clean + s), uint8 [H, W].

    Returns None if there is no such layer because the rain is not additive or not grey.
    """
    difference = pair.rainy.astype(np.int16) - pair.clean
    layer = difference.max(axis=2)
    if difference.min() < 0 or not np.array_equal(_add(pair.clean, layer), pair.rainy):
        return None
    return np.asarray(layer, np.uint8)


def extract_layers(pairs: Pairs) -> LayerSource:
    """Extract the rain layers of all pairs.

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
    return LayerSource(layers)


def open_layers(folder: Path) -> LayerSource:
    """Layers of the Rain100 pairs in a folder; without pairs, its images are rendered layers.

    Raises:
        UserError: the folder is missing or empty, or an image is not a rain layer.
    """
    if _holds_pairs(folder):
        return extract_layers(FolderPairs(find_pairs(folder, "rain100")))
    layers = []
    for file in find_rainy(folder):
        image = read_rgb(file)
        if np.ptp(image.astype(np.int16), axis=2).max() > GREY_TOLERANCE:
            raise UserError(f"{file} is not a rain layer: expected an image of grey rain on black")
        layers.append(image[..., 0].copy())
    return LayerSource(layers, rendered=True)


def open_clean(folder: Path) -> list[Pixels]:
    """Clean images of the Rain100 pairs in a folder, or all its images; uint8 [H, W, 3].

    Raises:
        UserError: the folder is missing or empty, or an image cannot be read.
    """
    if _holds_pairs(folder):
        return [pair.clean for pair in FolderPairs(find_pairs(folder, "rain100"))]
    return [read_rgb(file) for file in find_rainy(folder)]


def _holds_pairs(folder: Path) -> bool:
    return any(file.name.startswith("norain-") for file in list_images(folder))


def exchange_rain(
    rainy: Pixels | None, clean: Pixels, exchange: RainExchange, random: np.random.Generator
) -> Pixels:
    """Return `rainy` itself, or `clean` with other rain.

    Args:
        rainy: uint8 [H, W, 3], or None for a clean scene.
        clean: uint8 [H, W, 3].
        exchange: sources of the layers and their probabilities.
        random: generator of all random choices.
    """
    drawn = random.random()
    if rainy is not None and drawn >= exchange.exchanged + exchange.modelled:
        return rainy
    if exchange.sources and drawn >= exchange.modelled:
        source = exchange.sources[int(random.integers(len(exchange.sources)))]
        return _add(clean, _draw_layer(source, clean.shape[0], clean.shape[1], random))
    return add_rain(clean, RAINS[("light", "heavy")[random.integers(2)]], random)


def hold_out(
    source: LayerSource, count: int, name: str, scenes: Pairs
) -> tuple[LayerSource, list[Pair]]:
    """Separate the first `count` layers and add them to scenes, for validation.

    Args:
        source: layers of one source.
        count: number of layers that training must not see.
        name: of the source; the pairs are named after it and after their scene.
        scenes: pairs whose clean images get the rain. Layer and scene are cropped to a common size.

    Returns:
        The other layers, and one pair per scene.

    Raises:
        UserError: no layer would be left.
    """
    if count >= len(source.images):
        raise UserError(
            f"--validation must be below the number of layers in {name}, {len(source.images)}, "
            f"got {count}"
        )
    held = source._replace(images=source.images[:count])
    pairs = []
    for index, scene in enumerate(scenes):
        height, width = np.min([scene.clean.shape[:2], *(x.shape for x in held.images)], axis=0)
        clean = scene.clean[:height, :width]
        layer = _draw_layer(held, height, width, np.random.default_rng(index))
        pairs.append(Pair(f"{name}-{scene.name}", _add(clean, layer), clean))
    return source._replace(images=source.images[count:]), pairs


def _draw_layer(
    source: LayerSource, height: int, width: int, random: np.random.Generator
) -> np.ndarray:
    """A random crop of rain [height, width], mirrored with probability 0.5."""
    total = np.zeros((height, width))
    for _ in range(int(random.integers(1, MAX_LAYERS, endpoint=True)) if source.rendered else 1):
        layer = source.images[int(random.integers(len(source.images)))]
        top = random.integers(0, layer.shape[0] - height, endpoint=True)
        left = random.integers(0, layer.shape[1] - width, endpoint=True)
        piece = layer[top : top + height, left : left + width]
        gain = np.exp(random.uniform(*np.log(GAIN_RANGE))) if source.rendered else 1.0
        total += gain * (piece[:, ::-1] if random.integers(2) else piece)
    return total


def _add(clean: Pixels, layer: np.ndarray) -> Pixels:
    """min(255, clean + layer), rounded: uint8 [H, W, 3]."""
    return np.asarray(np.minimum(255, np.rint(clean + layer[..., None])), np.uint8)
