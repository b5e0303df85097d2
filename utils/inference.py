"""Apply a network to one image of any size, tiling large images."""

import gc
import math
import time
from inspect import signature
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.errors import UserError
from utils.image import Pixels, to_pixels, to_tensor
from utils.runtime import autocast, free_memory, synchronize

MAX_UNTILED = 1_000_000  # pixels
LARGEST_TILE = 1024  # pixels; larger tiles save little time
TILE_MEMORY = 2 * 2**30  # bytes, on the CPU; with it 24 megapixels need less than 4 GB in all
ALIGNMENT = 16  # stride of the coarsest scale; tiles must start on its grid
OVERLAP = 128
MARGIN = 48  # pixels at an inner tile edge that are discarded: much of their view is missing
LONG = 30  # seconds from which on the expected time is printed


@torch.inference_mode()
def derain(
    network: nn.Module,
    rainy: Tensor,
    tile: int = 0,
    precision: torch.dtype = torch.float32,
    name: str = "",
    ensemble: bool = False,
) -> Tensor:
    """Remove the rain from one image.

    Args:
        network: in evaluation mode; see `apply`.
        rainy: [3, H, W] in [0, 1], on the network's device.
        tile: largest side of the tiles in pixels, at least 256, rounded up to a multiple of 16. 0
            uses no tiles for images of up to one megapixel that fit into half of the free memory,
            and otherwise the largest tiles that fit (`bytes_per_pixel`). Tiles overlap by 128
            pixels and are blended. If memory runs out, the tile side is halved and the image
            restarted.
        precision: dtype of the convolutions; torch.bfloat16 uses autocast.
        name: if given, tiles get a progress bar of this name, and the expected time is printed
            when it is long.
        ensemble: average the results for the image and for its mirror image.

    Returns:
        [3, H, W], float32, not clamped.

    Raises:
        UserError: there is not enough memory for the smallest tile.
    """
    if ensemble:
        both = (rainy, rainy.flip(2))
        straight, mirrored = (
            derain(network, x, tile, precision, f"{name}, pass {i} of 2" if name else "")
            for i, x in enumerate(both, 1)
        )
        return (straight + mirrored.flip(2)) / 2
    h, w = rainy.shape[1:]
    tile = tile or _tile_that_fits(network, h, w, rainy.device)
    tile = max(-(-tile // ALIGNMENT) * ALIGNMENT, 2 * OVERLAP)
    while True:
        try:
            with autocast(rainy.device, precision):
                return _derain_tiles(network, rainy, tile, name)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # The error is deleted here, and with its traceback the tensors of the failed tile.
        gc.collect()
        if rainy.is_cuda:
            torch.cuda.empty_cache()
        if tile <= 2 * OVERLAP:
            raise UserError(
                f"out of memory even with tiles of {tile}x{tile} pixels: "
                "free some memory or change --device"
            )
        tile = max(min(tile, max(h, w)) // 2 // ALIGNMENT * ALIGNMENT, 2 * OVERLAP)


def derain_pixels(
    network: nn.Module,
    rainy: Pixels,
    device: torch.device,
    tile: int = 0,
    precision: torch.dtype = torch.float32,
    name: str = "",
    ensemble: bool = False,
) -> Pixels:
    """Remove the rain from pixels; keep their size, bit depth and alpha.

    Args:
        network: on `device`.
        rainy: [H, W, 3], or [H, W, 4] with alpha; RGB; uint8 or uint16. The result is of this kind.
        device: where to compute.
        tile: see `derain`; so are the others.
        precision: dtype of the convolutions.
        name: of the progress bar.
        ensemble: average over the mirror image.
    """
    image = to_tensor(rainy).to(device)
    derained = to_pixels(derain(network, image, tile, precision, name, ensemble), rainy.dtype.type)
    return np.concatenate([derained, rainy[..., 3:]], axis=2)


def bytes_per_pixel(network: nn.Module) -> int:
    """Estimate the memory of a forward pass per pixel, in float32.

    JDNet keeps the features of all units and needs at most 12 more maps of `channels`. Measured on
    the CPU with 32 channels: 1325 bytes with 2 units, 2193 with 8, 3704 with 16, 5698 with 32; the
    estimates are 1920, 2688, 3712 and 5760. The other networks need 1073 to 8211.
    """
    fusions = getattr(network, "dense", None)
    if not fusions:
        return 8500
    return 4 * int(fusions[-1].in_channels + 12 * fusions[-1].out_channels)


def _tile_that_fits(network: nn.Module, h: int, w: int, device: torch.device) -> int:
    memory, per_pixel = free_memory(device) / 2, bytes_per_pixel(network)
    if h * w <= min(MAX_UNTILED, memory / per_pixel):
        return max(h, w)
    if device.type != "cuda":
        memory = min(memory, TILE_MEMORY)
    return min(int(math.sqrt(memory / per_pixel)) // ALIGNMENT * ALIGNMENT, LARGEST_TILE)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed. On the CPU torch raises a RuntimeError like any other."""
    cpu = (
        "DefaultCPUAllocator: can't allocate memory",
        "DefaultCPUAllocator: not enough memory",  # Windows
        "could not create a primitive",  # oneDNN, which runs the convolutions
    )
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in cpu
    )


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


def _derain_tiles(network: nn.Module, rainy: Tensor, tile: int, name: str) -> Tensor:
    h, w = rainy.shape[1:]
    tiles = list(product(_spans(h, tile), _spans(w, tile)))
    bar = tqdm(tiles, name, disable=None if name and len(tiles) > 1 else True, leave=False)
    start = time.monotonic()
    derained = torch.zeros_like(rainy)
    for count, ((top, bottom), (left, right)) in enumerate(bar, 1):
        part = rainy[:, top:bottom, left:right].unsqueeze(0)
        result = apply(network, part, (top, left, h, w)).squeeze(0).float()
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


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Intervals [start, stop) of about the same length that cover `length` and overlap by OVERLAP.

    They are not longer than `tile`, and their starts are aligned.
    """
    if length <= tile:
        return [(0, length)]
    count = math.ceil((length - OVERLAP) / (tile - OVERLAP))
    step = math.ceil((length - OVERLAP) / count / ALIGNMENT) * ALIGNMENT
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
