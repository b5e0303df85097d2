"""Measure how much a derained tile differs from the same region of the derained full image.

    python -m tools.tiles datasets/Rain100L/rainy --weights runs/a/best.pt runs/b/best.pt

Derains every full image, then its central tile twice: as an image of its own, and with the
coordinates of the full image. Compares the tiles without 16 pixels at each side. Differences are on
the scale 0 to 255. If they are small, the network can derain large images in tiles, with little
memory.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from config.cli import tool_options
from data import find_rainy
from models import Network
from models.load import open_network
from utils.errors import UserError, run_command
from utils.image import read_image, to_tensor
from utils.inference import ALIGNMENT, apply
from utils.runtime import choose_device, keep_freed_memory

MARGIN = 16  # pixels at each side of a tile that are not compared


@dataclass(frozen=True)
class Options:
    """What to compare."""

    images: Path
    """Folder of rainy images."""
    weights: tuple[Path, ...] = ()
    """Weights, at least one file; one row of the table per file."""
    side: int = 128
    """Side of the tile in pixels."""
    limit: int | None = None
    """Maximum number of images."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""


@torch.inference_mode()
def tile_differences(network: Network, rainy: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Absolute differences of the central tile from the full image, on the scale 0 to 255.

    Args:
        network: in evaluation mode.
        rainy: [3, H, W] in [0, 1], H and W at least `side`.
        side: side of the tile in pixels.

    Returns:
        Differences of the tile with its own coordinates, and with those of the full image: each
        [3, side - 2 * MARGIN, side - 2 * MARGIN].
    """
    height, width = rainy.shape[1:]
    top, left = ((n - side) // 2 // ALIGNMENT * ALIGNMENT for n in (height, width))
    region = (slice(None), slice(top, top + side), slice(left, left + side))
    whole = network(rainy.unsqueeze(0)).squeeze(0)[region]
    tile = rainy[region].unsqueeze(0)
    inner = (slice(None), slice(MARGIN, side - MARGIN), slice(MARGIN, side - MARGIN))
    alone, placed = (
        255 * (whole - apply(network, tile, window).squeeze(0))[inner].abs()
        for window in ((0, 0, side, side), (top, left, height, width))
    )
    return alone, placed


def main(arguments: list[str]) -> None:
    """Run `python -m tools.tiles IMAGES --weights ...`."""
    options = tool_options(Options, arguments, "python -m tools.tiles", __doc__)
    if not options.weights:
        raise UserError("no weights: give one or more files with --weights")
    if options.side <= 2 * MARGIN:
        raise UserError(f"--side must exceed {2 * MARGIN}, got {options.side}")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit must be at least 1, got {options.limit}")
    keep_freed_memory()
    device = choose_device(options.device)
    files = find_rainy(options.images)[: options.limit]
    print(f"tiles of {options.side}x{options.side} in {len(files)} images, differences of 255\n")
    print("| weights | own coordinates: mean | max | full image's: mean | max |\n|" + "---|" * 5)
    for path in options.weights:
        network = open_network(path, device)
        differences = []
        for file in files:
            rainy = to_tensor(read_image(file)).to(device)
            if min(rainy.shape[1:]) < options.side:
                raise UserError(f"{file} is smaller than a tile: reduce --side")
            differences.append(tile_differences(network, rainy, options.side))
        cells = []
        for kind in zip(*differences, strict=True):
            cells.append(f"{fmean(d.mean().item() for d in kind):.4f}")
            cells.append(f"{max(d.max().item() for d in kind):.2f}")
        print(f"| {path} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    run_command(main)
