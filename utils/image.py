"""Images as files, arrays and tensors.

Arrays are [H, W, 3], RGB, uint8 or uint16, or [H, W, 4] if the file has an alpha channel.
Tensors are float32 [3, H, W] in [0, 1].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from utils.errors import UserError
from utils.files import replacing

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

Pixels = NDArray[Any]  # [H, W, 3 or 4], uint8 or uint16


def list_images(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """List the files of a folder with these suffixes, sorted by name.

    Raises:
        UserError: the folder is missing or has no such file.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: check the path, see README's Data section")
    files = sorted(
        f
        for f in folder.iterdir()
        # Skip hidden files: some systems write `._NAME` next to an image.
        if f.suffix.lower() in suffixes and not f.name.startswith(".") and f.is_file()
    )
    if not files:
        raise UserError(
            f"nothing to read in {folder}: expected files ending in {', '.join(suffixes)}"
        )
    return files


def read_image(path: Path) -> Pixels:
    """Read an image, keeping its bit depth and alpha channel.

    The EXIF orientation is applied. Grey and palette images become RGB.

    Returns:
        [H, W, 3], or [H, W, 4] with alpha; RGB; uint8, or uint16 for 16-bit files.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    try:
        with Image.open(path) as file:
            file.load()  # unlike OpenCV, Pillow detects truncated files
            deep = file.mode[0] in "IF" or _has_16_bits(path, file)
            orientation = file.getexif().get(0x0112, 1)
            if not deep:
                return _pillow_pixels(file)
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except Exception as error:  # Pillow's decoders raise many types
        raise UserError(f"cannot read {path}: truncated or not an image ({error})") from None
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # Pillow would reduce colour to 8 bits
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"cannot read {path}: expected 8 or 16 bits per channel")
    return _upright(_opencv_to_rgb(pixels), orientation)


def _pillow_pixels(file: Image.Image) -> Pixels:
    upright = ImageOps.exif_transpose(file)
    alpha = "A" in upright.getbands() or "transparency" in upright.info
    return np.array(upright.convert("RGBA" if alpha else "RGB"))


def _has_16_bits(path: Path, file: Image.Image) -> bool:
    if file.format == "PNG":
        with path.open("rb") as stream:
            return stream.read(25)[24] == 16  # IHDR's bit depth
    bits = getattr(file, "tag_v2", {}).get(258, (8,))  # TIFF's BitsPerSample
    return bool(max(bits if isinstance(bits, tuple) else (bits,)) == 16)


def _opencv_to_rgb(pixels: Pixels) -> Pixels:
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def write_image(path: Path, pixels: Pixels) -> None:
    """Write RGB or RGBA pixels atomically, uint8 or uint16; the suffix of `path` sets the format.

    Raises:
        UserError: the format does not support the data type.
    """
    order = [2, 1, 0, 3][: pixels.shape[2]]
    done, data = cv2.imencode(path.suffix, np.ascontiguousarray(pixels[..., order]))
    if not done:
        raise UserError(f"cannot write {path}: its format does not support {pixels.dtype}")
    with replacing(path) as stream:
        stream.write(data.tobytes())


def to_tensor(pixels: Pixels) -> Tensor:
    """Integers [H, W, 3 or 4] -> float32 [3, H, W] in [0, 1], without alpha."""
    peak = np.iinfo(pixels.dtype).max
    planes = np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(planes).div_(float(peak))


def to_pixels(image: Tensor, dtype: type[np.unsignedinteger[Any]] = np.uint8) -> Pixels:
    """Floats [3, H, W] in [0, 1] -> integers [H, W, 3], clamped and then rounded."""
    peak = np.iinfo(dtype).max
    planes = image.detach().double().clamp(0, 1).mul(peak).round().cpu().numpy()
    return np.ascontiguousarray(planes.transpose(1, 2, 0).astype(dtype))


def hstack(*images: Pixels, gap: int = 4) -> Pixels:
    """Concatenate images of the same height in a row, separated by white gaps."""
    peak = np.iinfo(images[0].dtype).max
    white = np.full((images[0].shape[0], gap, 3), peak, dtype=images[0].dtype)
    row: list[Pixels] = []
    for image in images:
        row += [white, image[..., :3]]
    return np.concatenate(row[1:], axis=1)
