"""Images as files, arrays and tensors.

Arrays are [H, W, 3], RGB, uint8 or uint16, with a fourth channel for alpha where the file has one.
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
    """The files of a folder with these suffixes, by name.

    Raises:
        UserError: the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: check the path, README's Data section has the trees")
    files = sorted(
        f
        for f in folder.iterdir()
        # Some systems leave `._NAME` beside an image: not one itself.
        if f.suffix.lower() in suffixes and not f.name.startswith(".") and f.is_file()
    )
    if not files:
        raise UserError(f"nothing in {folder}: expected files ending in {', '.join(suffixes)}")
    return files


def read_image(path: Path) -> Pixels:
    """Read an image whole, upright (EXIF orientation applied), with its bit depth and alpha.

    Grey and palette images become RGB.

    Returns:
        [H, W, 3], or [H, W, 4] with alpha; RGB; uint8, or uint16 where the file has 16 bits.

    Raises:
        UserError: the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as file:
            file.load()  # Pillow, unlike OpenCV, notices a truncated file
            deep = file.mode[0] in "IF" or _has_16_bits(path, file)
            orientation = file.getexif().get(0x0112, 1)
            if not deep:
                return _pillow_pixels(file)
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UserError(f"cannot read {path}: not a whole image file ({error})") from None
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # Pillow would cut colour to 8 bits
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"cannot read {path}: expected 8 or 16 bits a channel")
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
    """Write RGB or RGBA pixels, uint8 or uint16, by the suffix of `path`; whole or not at all."""
    order = [2, 1, 0, 3][: pixels.shape[2]]
    done, data = cv2.imencode(path.suffix, np.ascontiguousarray(pixels[..., order]))
    if not done:
        raise UserError(f"cannot write {path}: {pixels.dtype} pixels do not fit its format")
    with replacing(path) as stream:
        stream.write(data.tobytes())


def to_tensor(pixels: Pixels) -> Tensor:
    """[H, W, 3 or 4] integers -> float32 [3, H, W] in [0, 1]; alpha is left out."""
    peak = np.iinfo(pixels.dtype).max
    planes = np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(planes).div_(float(peak))


def to_pixels(image: Tensor, dtype: type[np.unsignedinteger[Any]] = np.uint8) -> Pixels:
    """Float [3, H, W] in [0, 1] -> [H, W, 3] integers: clamped, then rounded, never wrapped."""
    peak = np.iinfo(dtype).max
    planes = image.detach().double().clamp(0, 1).mul(peak).round().cpu().numpy()
    return np.ascontiguousarray(planes.transpose(1, 2, 0).astype(dtype))


def hstack(*images: Pixels, gap: int = 4) -> Pixels:
    """Join images of one height in a row, with a white gap: rainy | derained | clean."""
    peak = np.iinfo(images[0].dtype).max
    white = np.full((images[0].shape[0], gap, 3), peak, dtype=images[0].dtype)
    row: list[Pixels] = []
    for image in images:
        row += [white, image[..., :3]]
    return np.concatenate(row[1:], axis=1)
