"""Apply a network to an image in overlapping tiles, which are blended."""

import math
import time
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from tqdm import tqdm

from models.network import Window
from utils.runtime import synchronize

OVERLAP = 128  # pixels
MARGIN = 48  # pixels at an inner tile edge that are discarded: much of their view is missing
SMALLEST = 2 * OVERLAP  # side of a tile in pixels
LONG = 30  # seconds from which on the expected time is printed


def derain_tiles(
    network: Callable[[Tensor, Window], Tensor], rainy: Tensor, tile: int, stride: int, name: str
) -> Tensor:
    """Derain an image tile by tile.

    Args:
        network: derains a tile [1, 3, h, w], given its window in the image.
        rainy: [3, H, W].
        tile: largest side of the tiles in pixels; smaller images are one tile.
        stride: tiles start at multiples of it.
        name: of the progress bar; "" shows none.

    Returns:
        [3, H, W], float32.
    """
    h, w = rainy.shape[1:]
    tiles = list(product(spans(h, tile, stride), spans(w, tile, stride)))
    bar = tqdm(tiles, name, disable=None if name and len(tiles) > 1 else True, leave=False)
    start = time.monotonic()
    derained = torch.zeros_like(rainy, dtype=torch.float32)
    for count, ((top, bottom), (left, right)) in enumerate(bar, 1):
        part = rainy[:, top:bottom, left:right].unsqueeze(0)
        result = network(part, (top, left, h, w)).squeeze(0).float()
        down, across = _ramp(top, bottom, h, part.device), _ramp(left, right, w, part.device)
        derained[:, top:bottom, left:right] += result * torch.outer(down, across)
        if name and count <= 2:  # the first tile also loads the compiled operators
            synchronize(rainy.device)
            if count == 2:
                _announce(name, h * w, len(tiles), time.monotonic() - start)
            start = time.monotonic()
    return derained


def _announce(name: str, pixels: int, tiles: int, seconds: float) -> None:
    """Print the expected time of a long run, from the seconds of one tile."""
    expected = seconds * tiles
    if expected > LONG:
        unit, size = ("minutes", 60) if expected > 90 else ("seconds", 1)
        tqdm.write(
            f"{name}: {pixels / 1e6:.3g} megapixels in {tiles} tiles, "
            f"about {math.ceil(expected / size)} {unit}"
        )


def spans(length: int, tile: int, stride: int) -> list[tuple[int, int]]:
    """Intervals [start, stop) of about the same length that cover `length` and overlap by OVERLAP.

    They are not longer than `tile`, and start at multiples of `stride`.
    """
    if length <= tile:
        return [(0, length)]
    count = math.ceil((length - OVERLAP) / (tile - OVERLAP))
    step = math.ceil((length - OVERLAP) / count / stride) * stride
    return [
        (start, min(start + step + OVERLAP, length)) for start in range(0, length - OVERLAP, step)
    ]


def _ramp(start: int, stop: int, length: int, device: torch.device) -> Tensor:
    """Blending weight: 0 near tile edges inside the image, rising linearly to 1.

    The weights of overlapping tiles add up to 1.
    """
    position = torch.arange(start, stop, device=device, dtype=torch.float32) + 0.5
    ramp = torch.ones_like(position)
    for edge, inner in ((position - start, start > 0), (stop - position, stop < length)):
        if inner:
            ramp = torch.minimum(ramp, (edge - MARGIN) / (OVERLAP - 2 * MARGIN))
    return ramp.clamp_(min=0)
