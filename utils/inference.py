"""Apply a network to one image of any size, tiling large images."""

from inspect import signature

import torch
from torch import Tensor, nn

from utils.errors import UserError

MAX_UNTILED = 1_000_000  # pixels; the 32-unit JDNet needs about 7 GB for that many
ALIGNMENT = 16  # stride of the coarsest scale; tiles must start on its grid
OVERLAP = 64
MARGIN = 16  # pixels at an inner tile edge that are discarded


@torch.inference_mode()
def derain(
    network: nn.Module, rainy: Tensor, tile: int = 0, precision: torch.dtype = torch.float32
) -> Tensor:
    """Remove the rain from one image.

    Args:
        network: in evaluation mode; see `apply`.
        rainy: [3, H, W] in [0, 1], on the network's device.
        tile: side of the square tiles in pixels, at least 128, rounded up to a multiple of 16. 0
            uses no tiles for images of up to one megapixel and tiles of 512 pixels above. Tiles
            overlap by 64 pixels and are blended. If memory runs out, the tile side is halved and
            the image restarted.
        precision: dtype of the convolutions; torch.bfloat16 uses autocast.

    Returns:
        [3, H, W], float32, not clamped.

    Raises:
        UserError: there is not enough memory for the smallest tile.
    """
    h, w = rainy.shape[1:]
    if tile == 0:
        tile = max(h, w) if h * w <= MAX_UNTILED else 512
    tile = max(-(-tile // ALIGNMENT) * ALIGNMENT, 2 * OVERLAP)
    while True:
        try:
            with torch.autocast(rainy.device.type, precision, precision != torch.float32):
                return _derain_tiles(network, rainy, tile)
        except RuntimeError as error:  # torch.OutOfMemoryError on CUDA, the allocator's on CPU
            if "memory" not in str(error):
                raise
            if tile <= 2 * OVERLAP:
                raise UserError(
                    f"out of memory even with tiles of {tile}x{tile} pixels: "
                    "free some memory or change --device"
                ) from None
        tile = max(tile // 2 // ALIGNMENT * ALIGNMENT, 2 * OVERLAP)


def apply(network: nn.Module, tile: Tensor, window: tuple[int, int, int, int]) -> Tensor:
    """Apply a network to a tile of a larger image, [B, 3, h, w] -> [B, 3, h, w].

    Args:
        network: JDNet, whose position term is that of the whole image; or one without such a term.
        tile: the tile.
        window: (top, left, full height, full width) of the tile in the whole image.
    """
    takes_window = "window" in signature(network.forward).parameters
    derained: Tensor = network(tile, window) if takes_window else network(tile)
    return derained


def _derain_tiles(network: nn.Module, rainy: Tensor, tile: int) -> Tensor:
    h, w = rainy.shape[1:]
    total, weight = torch.zeros_like(rainy), torch.zeros_like(rainy[:1])
    for top, bottom in _spans(h, tile):
        for left, right in _spans(w, tile):
            part = rainy[:, top:bottom, left:right].unsqueeze(0)
            derained = apply(network, part, (top, left, h, w)).squeeze(0).float()
            ramp = torch.outer(
                _ramp(top, bottom, h, rainy.device), _ramp(left, right, w, rainy.device)
            )
            total[:, top:bottom, left:right] += derained * ramp
            weight[:, top:bottom, left:right] += ramp
    return total / weight


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Overlapping intervals [start, stop) that cover `length`, with aligned starts."""
    if length <= tile:
        return [(0, length)]
    starts = [*range(0, length - tile, tile - OVERLAP), length - tile]
    starts = sorted({start // ALIGNMENT * ALIGNMENT for start in starts})
    stops = [min(start + tile, length) for start in starts[:-1]] + [length]
    return list(zip(starts, stops, strict=True))


def _ramp(start: int, stop: int, length: int, device: torch.device) -> Tensor:
    """Blending weight: 0 near tile edges inside the image, rising linearly to 1."""
    position = torch.arange(start, stop, device=device, dtype=torch.float32) + 0.5
    ramp = torch.ones_like(position)
    for edge, inner in ((position - start, start > 0), (stop - position, stop < length)):
        if inner:
            ramp = torch.minimum(ramp, (edge - MARGIN) / (OVERLAP - 2 * MARGIN))
    return ramp.clamp_(min=0)
