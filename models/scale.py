"""Remove rain at the scale at which it falls.

A network knows streaks of the width in its training images, two to four pixels. The streaks of a
photograph of many megapixels can be many times as wide. Such a picture is reduced and derained, and
the rain that was found is enlarged and subtracted from the full picture.

The scale is chosen by the width of the streaks that the network finds in a few tiles of the
picture, reduced by 1, 2, 4 and so on.

A second look at a smaller picture tells rain from the bars of gates and fences, which often look
like rain at one scale only.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 64  # side of the tiles in pixels
BORDER = 8  # pixels at the edges of a tile that are not measured
WIDTH = 1.7  # of streaks at the best scale, as `streak_width` measures it
ENOUGH = 0.72  # strength of the rain at a scale, as a share of the strongest, from which it counts
NEAREST = 1.25  # scales below are taken for 1
NO_RAIN = 0.003  # RMS of the rain that counts as none

SECOND = 1.8  # factor by which the picture of the second look is smaller
USUAL = 0.7  # strength of rain in the second look, as a share of that in the first
ALL, NONE = 2.8, 4.5  # factors from USUAL up to which all and from which none is removed
REGION = 60  # standard deviation of the regions that are compared, in pixels at the first scale
CELL = 16  # side of the cells whose rain is averaged first, likewise


def derain_reduced(derain: Callable[[Tensor], Tensor], rainy: Tensor, scale: float) -> Tensor:
    """Derain an image at 1 / scale of its size: [3, H, W] -> [3, H, W].

    Args:
        derain: removes the rain from an image [3, h, w].
        rainy: the full image.
        scale: by which width and height are divided, at least 1.
    """
    if scale == 1:
        return derain(rainy)
    reduced = _reduce(rainy, scale)
    rain = reduced - derain(reduced)
    return rainy - F.interpolate(rain[None], rainy.shape[1:], mode="bicubic")[0]


def choose_scale(derain: Callable[[Tensor], Tensor], rainy: Tensor) -> float:
    """The scale at which the streaks of an image have the width that the network knows, from 1 up.

    Args:
        derain: removes the rain from images [B, 3, h, w].
        rainy: [3, H, W]. Images narrower than 256 pixels have scale 1: they hold no reduced tiles.
    """
    count = int(math.log2(max(1, min(rainy.shape[1:]) / (2 * TILE)))) + 1
    scales = [2.0**i for i in range(count)]
    if count == 1:
        return 1.0
    found = [_measure(derain, rainy, scale) for scale in scales]
    # The network finds only parts of streaks that are far too wide: their strength says little.
    near = (strength for strength, width in found if width <= 2 * WIDTH)
    enough = max(NO_RAIN, ENOUGH * max(near, default=0.0))
    # From coarse to fine: at a scale far too fine, the network finds only texture.
    for i in range(count - 1, 0, -1):
        (strength, width), (_, finer) = found[i], found[i - 1]
        if strength >= enough and width <= WIDTH < finer:
            scale = scales[i - 1] * 2 ** (math.log(finer / WIDTH) / math.log(finer / width))
            return 1.0 if scale < NEAREST else scale
    strength, width = found[-1]
    return scales[-1] if strength >= enough and width > WIDTH else 1.0


def look_again(
    derain: Callable[[Tensor], Tensor], rainy: Tensor, derained: Tensor, scale: float
) -> Tensor:
    """Restore regions whose rain is not found again, about as strong, in a smaller picture.

    The bars of a gate may be as thin and as far apart as streaks. In the smaller picture they are a
    pattern in which the network finds next to nothing, or much more. Streaks have many widths and
    distances, and are found in both.

    Args:
        derain: removes the rain from an image [3, h, w].
        rainy: the full image [3, H, W].
        derained: the first result.
        scale: by which the image was reduced for it.

    Returns:
        [3, H, W]. The rainy image itself if hardly any rain was found (an RMS below 0.3 % of the
        full range).
    """
    if not _strength(rainy - derained) >= NO_RAIN:  # nor where it is not a number
        return rainy
    smaller = _reduce(rainy, scale * SECOND)
    again = smaller - derain(smaller)  # first, because its tiles need memory
    found = rainy - derained
    cells = [math.ceil(length / (scale * CELL)) for length in rainy.shape[1:]]
    share = (_power(again, cells) / _power(found, cells)).sqrt()
    off = (share / USUAL).log().abs()
    trust = ((math.log(NONE) - off) / math.log(NONE / ALL)).clamp(0, 1)
    kept = 1 - F.interpolate(trust[None, None], rainy.shape[1:], mode="bilinear")[0]
    return found.mul_(kept).add_(derained)


def _power(rain: Tensor, cells: list[int]) -> Tensor:
    """Mean square of a rain layer in the region around each cell: [3, h, w] -> cells."""
    power = torch.linalg.vector_norm(rain, dim=0).square()[None, None] / len(rain)
    power = F.interpolate(power, cells, mode="bilinear", antialias=True)[0, 0]
    rows, columns = (_gaussian(count, rain) for count in cells)
    return rows @ power @ columns.T + 1e-8  # without rain in both pictures the share is 1


def _gaussian(count: int, like: Tensor) -> Tensor:
    """Matrix [count, count] that blurs cells, with weights that add up to 1 at the borders, too."""
    position = torch.arange(count, dtype=like.dtype, device=like.device) * (CELL / REGION)
    weights = torch.exp(-(position[:, None] - position).square() / 2)
    return weights / weights.sum(1, keepdim=True)


def _measure(
    derain: Callable[[Tensor], Tensor], rainy: Tensor, scale: float
) -> tuple[float, float]:
    """RMS and width of the rain found in four tiles at a scale."""
    side = round(TILE * scale)
    tiles = torch.stack(
        [
            _reduce(rainy[:, top : top + side, left : left + side], scale)
            for top in _starts(rainy.shape[1], side)
            for left in _starts(rainy.shape[2], side)
        ]
    )
    rain = (tiles - derain(tiles))[..., BORDER:-BORDER, BORDER:-BORDER]
    return _strength(rain), streak_width(rain)


def _strength(rain: Tensor) -> float:
    """RMS of a rain layer."""
    return rain.square().mean().sqrt().item()


def _starts(length: int, side: int) -> tuple[int, int]:
    """Starts of two intervals around the quarters of a length."""
    return max(0, length // 4 - side // 2), min(length - side, 3 * length // 4 - side // 2)


def streak_width(rain: Tensor) -> float:
    """Width of streaks in pixels, up to a constant factor.

    It is the standard deviation of the rain divided by that of its derivative across the streaks,
    which is the direction of the largest derivative.

    Args:
        rain: rain layers [B, 3, H, W].
    """
    grey = rain.mean(dim=1)
    dx, dy = grey.diff(dim=2)[:, :-1], grey.diff(dim=1)[:, :, :-1]
    xx, yy, xy = (float((a * b).mean()) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    across = (xx + yy) / 2 + math.hypot((xx - yy) / 2, xy)
    return float(grey.std()) / math.sqrt(across) if across > 0 else 0.0


def _reduce(image: Tensor, scale: float) -> Tensor:
    size = [max(1, round(length / scale)) for length in image.shape[1:]]
    if scale == 1:
        return image
    return F.interpolate(image[None], size, mode="bicubic", antialias=True)[0]
