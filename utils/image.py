"""Images as files, arrays and tensors.

Arrays are [H, W, 3], RGB, uint8 or uint16, or [H, W, 4] if the file has an alpha channel.
Tensors are float32 [3, H, W] in [0, 1].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.files import list_names
from utils.photo.decode import read_photograph
from utils.photo.encode import FORMATS, write_photograph
from utils.pixels import Pixels as Pixels

SUFFIXES = tuple(FORMATS)

GAP = 4  # white columns between the images of a row


def list_images(
    folder: Path,
    suffixes: Sequence[str] = SUFFIXES,
    recursive: bool = False,
    skip: Path | None = None,
) -> list[Path]:
    """List the files of a folder with these suffixes, sorted by path; see `list_files`.

    Args:
        folder: the folder.
        suffixes: in lower case, each with its dot.
        recursive: also list the files of all folders in it.
        skip: a folder to leave out.

    Raises:
        UserError: the folder is missing, cannot be read, or has no such file.
    """
    return list(map(Path, image_names(folder, suffixes, recursive, skip)))


def image_names(
    folder: Path,
    suffixes: Sequence[str] = SUFFIXES,
    recursive: bool = False,
    skip: Path | None = None,
) -> list[str]:
    """The files of `list_images` as text: a million paths take too long."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: check the path, see README's Data section")
    known, (files, _, _) = tuple(suffixes), list_names(folder, recursive, skip)
    files = [file for file in files if file.lower().endswith(known)]
    if not files:
        raise UserError(
            f"nothing to read in {folder}: expected files ending in {', '.join(suffixes)}"
        )
    return files


def read_image(path: Path) -> Pixels:
    """Read an image, upright, with its bit depth and alpha channel; grey becomes RGB.

    Raises:
        UserError: see `utils.photo.decode.read_photograph`.
    """
    return read_photograph(path)[0]


def write_image(path: Path, pixels: Pixels) -> None:
    """Write pixels atomically; the suffix sets the format.

    Raises:
        UserError: the format cannot hold the image.
    """
    write_photograph(path, pixels)


def to_tensor(pixels: Pixels) -> Tensor:
    """Integers [H, W, 3 or 4] -> float32 [3, H, W] in [0, 1], without alpha."""
    peak = np.iinfo(pixels.dtype).max
    planes = np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(planes).div_(float(peak))


def to_pixels(image: Tensor, dtype: type[np.unsignedinteger[Any]] = np.uint8) -> Pixels:
    """Floats [3, H, W] in [0, 1] -> integers [H, W, 3], clamped and then rounded."""
    peak = np.iinfo(dtype).max
    pixels = np.empty((*image.shape[1:], 3), dtype)
    for channel, plane in enumerate(image.detach()):  # one by one, to save memory
        values = plane.double().clamp(0, 1).mul_(peak).round_()
        pixels[..., channel] = values.cpu().numpy()
    return pixels


def with_alpha(pixels: Pixels, source: Pixels) -> Pixels:
    """Append the alpha channel of `source`, if it has one, to [H, W, 3]."""
    return np.concatenate([pixels, source[..., 3:]], axis=2)


def hstack(*images: Pixels, gap: int = GAP) -> Pixels:
    """Concatenate images of the same height in a row, separated by white gaps."""
    peak = np.iinfo(images[0].dtype).max
    white = np.full((images[0].shape[0], gap, 3), peak, dtype=images[0].dtype)
    row: list[Pixels] = []
    for image in images:
        row += [white, image[..., :3]]
    return np.concatenate(row[1:], axis=1)
