"""Rain layers that can be added to any scene.

A rainy image of Rain100 is exactly min(255, clean + s), where the grey layer s >= 0 is the same for
all three channels. Adding the layer of one pair to the clean image of another gives a valid new
pair.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, overload

import cv2
import numpy as np

from config.schema import Rain
from data.drops import draw_drops
from data.files import FolderPairs, read_rgb
from data.layouts import find_pairs, list_in_order
from data.pairs import Pair, Pairs, refuse_smaller, streams
from data.structures import draw_structures, lighten
from data.synthetic import RAINS, add_rain
from utils.errors import UserError
from utils.image import Pixels, list_images, read_image

MAX_CROPS = 6  # of a sparse rendered layer, added up
SPARSE = 0.5  # smallest share of black pixels, up to GREY_TOLERANCE, of a sparse layer
GREY_TOLERANCE = 2  # maximum difference between the channels of a rendered layer, in levels


class LayerSource(NamedTuple):
    """Rain layers from one source, uint8 [H, W] each, 0 where there is no rain."""

    images: Sequence[Pixels]
    rendered: bool = False  # on black: one to MAX_CROPS crops of a sparse layer are added up


def rain_layer(pair: Pair) -> Pixels | None:
    """The layer s with rainy = min(255, clean + s), uint8 [H, W].

    Returns None if there is no such layer because the rain is not additive or not grey.
    """
    difference = pair.rainy.astype(np.int16) - pair.clean
    layer = difference.max(axis=2)
    if difference.min() < 0 or not np.array_equal(_add(pair.clean, layer), pair.rainy):
        return None
    return np.asarray(layer, np.uint8)


class PairLayers(Sequence[Pixels]):
    """The rain layers of pairs, extracted when they are used.

    Args:
        pairs: the pairs.
        advice: what to do about rain that is not additive and grey.

    Raises:
        UserError: when a layer is used: the rain of its pair is not additive and grey.
    """

    def __init__(self, pairs: Pairs, advice: str) -> None:
        self.pairs, self.advice = pairs, advice

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice) -> "PairLayers": ...
    def __getitem__(self, index: int | slice) -> "Pixels | PairLayers":
        if isinstance(index, slice):
            return PairLayers(self.pairs[index], self.advice)
        pair = self.pairs[index]
        layer = rain_layer(pair)
        if layer is None:
            raise UserError(
                f"cannot exchange the rain of {pair.name}: it is not one grey layer added to the "
                f"clean image, as in Rain100; {self.advice}"
            )
        return layer


def extract_layers(pairs: Pairs, advice: str = "set --exchange 0") -> LayerSource:
    """Extract the rain layers of all pairs, or the first one now if not all fit in memory.

    Raises:
        UserError: the rain of a pair is not additive and grey; `advice` ends the message.
    """
    layers = PairLayers(pairs, advice)
    if not streams(pairs):
        return LayerSource(list(layers))
    if len(layers):
        layers[0]
    return LayerSource(layers)


def open_layers(folder: Path) -> LayerSource:
    """Layers of the Rain100 pairs in a folder; without pairs, its images are rendered layers.

    Raises:
        UserError: the folder is missing or empty, or an image is not a rain layer.
    """
    if holds_pairs(folder):
        advice = f"remove {folder} from --layers"
        return extract_layers(FolderPairs(find_pairs(folder, "rain100"), keep=True), advice)
    return LayerSource([read_layer(file) for file in list_in_order(folder)], rendered=True)


def read_layer(file: Path) -> Pixels:
    """Read a rendered layer, uint8 [H, W].

    Raises:
        UserError: it cannot be read, or is not a rain layer.
    """
    image = read_image(file)
    if image.dtype != np.uint8 or np.ptp(image[..., :3], axis=2).max() > GREY_TOLERANCE:
        raise UserError(
            f"{file} is not a rain layer: expected an image of grey rain on black, 8 bits"
        )
    layer = image[..., 0].copy()
    if image.shape[2] == 4:
        layer = np.rint(layer * (image[..., 3] / 255)).astype(np.uint8)
    return layer


def open_clean(folder: Path, side: int = 1) -> list[Pixels]:
    """Clean images of the Rain100 pairs in a folder, or all its images; uint8 [H, W, 3].

    Raises:
        UserError: the folder is missing or empty, or an image cannot be read or is smaller than
            `side` x `side` pixels.
    """
    if holds_pairs(folder):
        return [pair.clean for pair in FolderPairs(find_pairs(folder, "rain100"), keep=True)]
    return [read_scene(file, side) for file in list_in_order(folder)]


def read_scene(file: Path, side: int = 1) -> Pixels:
    """Read a clean image, uint8 [H, W, 3].

    Raises:
        UserError: it cannot be read or is smaller than `side` x `side` pixels.
    """
    image = read_rgb(file)
    refuse_smaller(image, side, file)
    return image


def holds_pairs(folder: Path) -> bool:
    """Whether a folder has both images of Rain100 pairs; one of clean images alone may not."""
    names = [file.name for file in list_images(folder)]
    rainy = any(name.startswith("rain-") for name in names) or (folder / "rainy").is_dir()
    return rainy and any(name.startswith("norain-") for name in names)


def make_patch(
    rainy: Pixels | None,
    clean: Pixels,
    sources: Sequence[LayerSource],
    rain: Rain,
    seed: int,
    index: int,
) -> tuple[Pixels, Pixels]:
    """Rain and scene of training patch `index`.

    Args:
        rainy: uint8 [H, W, 3], or None for a clean scene.
        clean: uint8 [H, W, 3].
        sources: layers for other rain.
        rain: which patches get which rain and structures.
        seed: any integer >= 0.
        index: of the patch.

    Returns:
        The rainy and the clean patch, uint8 [H, W, 3].
    """
    # Separate random streams: what changes the scene does not change which layer is drawn.
    structure, near, light = (np.random.default_rng([seed, stream, index]) for stream in (4, 5, 6))
    bright = light.random() < rain.bright
    structured = structure.random() < rain.structures
    kind = near.random()
    dry = kind < rain.dry
    drops = not dry and kind < rain.dry + rain.drops

    def rained(own: Pixels | None, scene: Pixels) -> Pixels:
        """Scene with the rain of this patch; every call draws the same rain."""
        random = np.random.default_rng([seed, 2, index])
        return exchange_rain(own, scene, sources, rain, random)

    own = None if rainy is None else rainy.astype(np.int16) - clean
    direction = 0.0
    if structured or drops:
        layer = rained(own, np.zeros_like(clean))  # the rain of this patch, on black
        direction = streak_direction(layer.max(axis=2))
    if bright:
        clean = lighten(clean, light)
    if structured:
        clean = draw_structures(clean, direction, structure)
    if own is not None:
        rainy = np.asarray((clean + own).clip(0, 255), np.uint8)
    alone = drops and near.random() < 0.5
    patch = clean if dry or alone else rained(rainy, clean)
    return draw_drops(patch, direction, near) if drops else patch, clean


def streak_direction(layer: np.ndarray) -> float:
    """Main direction of the streaks in a layer [H, W], by its structure tensor.

    Returns:
        Degrees from the vertical, -90 to 90, positive towards the lower right; 0 for a flat layer.
    """
    smooth = cv2.GaussianBlur(layer.astype(np.float32), (0, 0), 1)
    x, y = cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)
    gradient = np.arctan2(2 * float((x * y).sum()), float((x * x - y * y).sum())) / 2
    return -float(np.degrees(gradient))


def exchange_rain(
    rainy: Pixels | None,
    clean: Pixels,
    sources: Sequence[LayerSource],
    rain: Rain,
    random: np.random.Generator,
) -> Pixels:
    """Return `rainy` itself, or `clean` with a layer from one of the sources or modelled rain.

    Args:
        rainy: uint8 [H, W, 3], or None for a clean scene.
        clean: uint8 [H, W, 3].
        sources: all equally likely, whatever their number of layers.
        rain: probabilities and variation.
        random: generator of all random choices.
    """
    drawn = random.random()
    if rainy is not None and drawn >= rain.exchange + rain.modelled:
        return rainy
    if sources and drawn >= rain.modelled:
        source = sources[int(random.integers(len(sources)))]
        height, width = clean.shape[:2]
        return _add(clean, _draw_layer(source, height, width, rain, random))
    return add_rain(clean, RAINS[("light", "heavy")[random.integers(2)]], random)


def hold_out(
    source: LayerSource, count: int, name: str, scenes: Pairs, rain: Rain
) -> tuple[LayerSource, list[Pair]]:
    """Separate the first `count` layers and add them to scenes, for validation.

    Args:
        source: layers of one source.
        count: number of layers that training must not see.
        name: of the source; the pairs are named after it and after their scene.
        scenes: pairs whose clean images get the rain.
        rain: variation of the layers of a rendered source. Other layers stay as they are.

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
        height, width = scene.clean.shape[:2]
        used = rain if source.rendered else Rain()
        layer = _draw_layer(held, height, width, used, np.random.default_rng(index))
        pairs.append(Pair(f"{name}-{scene.name}", _add(scene.clean, layer), scene.clean))
    return source._replace(images=source.images[count:]), pairs


def _draw_layer(
    source: LayerSource, height: int, width: int, rain: Rain, random: np.random.Generator
) -> np.ndarray:
    """Rain [height, width] from one layer, mirrored with probability 0.5.

    A sparse rendered layer has few streaks. Several crops of it add up to denser rain of one
    direction. A dense layer is used once: a sum of several would be fog.
    """
    layer = source.images[int(random.integers(len(source.images)))]
    sparse = source.rendered and np.mean(layer <= GREY_TOLERANCE) >= SPARSE
    crops = int(random.integers(1, MAX_CROPS, endpoint=True)) if sparse else 1
    size, gain, angle = 1.0, 1.0, 0.0  # drawn only if they vary: plain recipes keep their patches
    if (*rain.layer_size, *rain.layer_gain, rain.layer_angle) != (1, 1, 1, 1, 0):
        size = np.exp(random.uniform(*np.log(rain.layer_size)))
        gain = np.exp(random.uniform(*np.log(rain.layer_gain)))
        angle = random.uniform(-rain.layer_angle, rain.layer_angle)
    total = np.zeros((height, width))
    for _ in range(crops):
        total += gain * _draw_crop(layer, height, width, size, angle, random)
    return total[:, ::-1] if random.integers(2) else total


def _draw_crop(
    layer: Pixels, height: int, width: int, size: float, angle: float, random: np.random.Generator
) -> np.ndarray:
    """A random crop [height, width] of a layer that is scaled by `size` and rotated."""
    if size == 1 and not angle:
        return _crop(layer, height, width, random)
    h, w = int(np.ceil(height / size)), int(np.ceil(width / size))
    side = int(np.ceil(np.hypot(h, w)))  # of a square that covers the crop at every angle
    square = _crop(layer, side, side, random).astype(np.float32)
    rotation: np.ndarray = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1)
    rotation[:, 2] -= (side - w) / 2, (side - h) / 2
    turned = cv2.warpAffine(square, rotation, (w, h), borderMode=cv2.BORDER_REPLICATE)
    if size < 1:
        return np.asarray(cv2.resize(turned, (width, height), interpolation=cv2.INTER_AREA))
    return np.asarray(cv2.resize(turned, (width, height), interpolation=cv2.INTER_CUBIC).clip(0))


def _crop(layer: Pixels, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A random crop of a layer [height, width]. A layer that is too small is repeated."""
    top = random.integers(0, max(0, layer.shape[0] - height), endpoint=True)
    left = random.integers(0, max(0, layer.shape[1] - width), endpoint=True)
    rows, columns = np.arange(top, top + height), np.arange(left, left + width)
    return np.asarray(layer.take(rows, 0, mode="wrap").take(columns, 1, mode="wrap"))


def _add(clean: Pixels, layer: np.ndarray) -> Pixels:
    """min(255, clean + layer), rounded: uint8 [H, W, 3]."""
    return np.asarray(np.minimum(255, np.rint(clean + layer[..., None])), np.uint8)
