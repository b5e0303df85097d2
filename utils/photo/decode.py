"""Read photographs: 8 or 16 bits, grey, palette, alpha, orientation, tags."""

import io
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tifffile import COMPRESSION, TiffFile

from utils.errors import UserError
from utils.photo.tags import ORIENTATION, Tags, read_orientation, read_tags

Pixels = NDArray[Any]  # as in utils.image, which imports this module


def read_photograph(path: Path) -> tuple[Pixels, Tags]:
    """Read an image with its tags, keeping its bit depth and alpha channel.

    The EXIF orientation is applied. Grey and palette images become RGB.

    Returns:
        [H, W, 3], or [H, W, 4] with alpha; RGB; uint8, or uint16 for 16-bit files. And the tags.

    Raises:
        UserError: the file is missing, truncated, not an image, or of an unsupported kind.
    """
    try:
        # Pillow warns of odd tags.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as file:
            orientation = read_orientation(file)
            _check(path, file)
            file.load()  # unlike OpenCV, Pillow detects truncated files
            if file.mode[0] in "IF" or _has_16_bits(path, file):
                pixels = _decode_deep(path, file)  # Pillow would reduce colour to 8 bits
            else:
                alpha = "A" in file.getbands() or "transparency" in file.info
                pixels = np.array(file.convert("RGBA" if alpha else "RGB"))
                orientation = 1 if file.format == "TIFF" else orientation  # Pillow has applied it
            return _upright(pixels, orientation), read_tags(file)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except PermissionError:
        raise UserError(f"cannot read {path}: no permission") from None
    except Image.DecompressionBombError:
        raise UserError(
            f"cannot read {path}: very large; set PIL.Image.MAX_IMAGE_PIXELS = None if you trust it"
        ) from None
    except UnidentifiedImageError:
        raise UserError(
            f"cannot read {path}: not an image of a known kind; expected PNG, JPEG, TIFF, WebP or "
            "BMP, with 8 or 16 bits per channel"
        ) from None
    except Exception as error:  # Pillow's decoders raise many types
        raise UserError(f"cannot read {path}: truncated or damaged ({error})") from None


def _check(path: Path, file: Image.Image) -> None:
    """Refuse images that have no derained counterpart of the same kind."""
    frames = getattr(file, "n_frames", 1)
    if frames > 1 and file.format != "MPO":  # a JPEG with a preview or depth map behind it
        raise UserError(
            f"cannot read {path}: it holds {frames} images; save the one you want, or convert an "
            "animation to MP4"
        )
    if file.mode in ("CMYK", "LAB"):
        raise UserError(
            f"cannot read {path}: its colours are {file.mode}; convert it to RGB in an image editor"
        )


def _has_16_bits(path: Path, file: Image.Image) -> bool:
    if file.format == "PNG":
        with path.open("rb") as stream:
            return stream.read(25)[24] == 16  # IHDR's bit depth
    bits = getattr(file, "tag_v2", {}).get(258, (8,))  # TIFF's BitsPerSample
    return bool(max(bits if isinstance(bits, tuple) else (bits,)) == 16)


def _decode_deep(path: Path, file: Image.Image) -> Pixels:
    """Decode 16-bit pixels as they are stored, without the orientation."""
    pixels = _decode_tiff(path) if file.format == "TIFF" else _opencv(path.read_bytes())
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"cannot read {path}: expected 8 or 16 bits per channel; convert it to 16 bits first"
        )
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _opencv(data: bytes) -> Pixels | None:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim == 2:
        return pixels
    return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def _decode_tiff(path: Path) -> Pixels | None:
    data = io.BytesIO(path.read_bytes())
    with TiffFile(data, mode="r+") as tiff:
        page = tiff.pages.first
        if tag := page.tags.get(ORIENTATION):
            tag.overwrite(1)  # OpenCV 5.0 applies some orientations, and fails at others
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            try:  # OpenCV would take these planes for interleaved pixels
                planes = page.asarray().reshape(-1, page.imagelength, page.imagewidth)
            except ValueError:  # tifffile does without some codecs
                raise UserError(
                    f"cannot read {path}: its channels are stored separately, with "
                    f"{COMPRESSION(page.compression).name} compression; save it without compression"
                ) from None
            pixels: Pixels | None = np.moveaxis(planes[:4], 0, 2)
        else:
            pixels = _opencv(data.getvalue())
        if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
            return None
        peak = np.iinfo(pixels.dtype).max
        if page.photometric == 0:  # 0 is white
            return peak - pixels
        if page.extrasamples[:1] == (1,) and pixels.ndim == 3 and pixels.shape[2] == 4:
            alpha = np.maximum(pixels[..., 3:], 1)  # by which the colours are multiplied
            colours = np.round(pixels[..., :3] * (peak / alpha)).clip(0, peak)
            pixels = np.concatenate([colours.astype(pixels.dtype), pixels[..., 3:]], axis=2)
        return pixels


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
