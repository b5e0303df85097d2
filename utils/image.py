"""Images as files, arrays and tensors.

Arrays are [H, W, 3], RGB, uint8 or uint16, or [H, W, 4] if the file has an alpha channel.
Tensors are float32 [3, H, W] in [0, 1].
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tifffile import COMPRESSION, TiffFile
from torch import Tensor

from utils.encode import FORMATS, encode
from utils.errors import UserError
from utils.files import replacing
from utils.tags import ORIENTATION, Tags, read_orientation, read_tags

SUFFIXES = tuple(FORMATS)

Pixels = NDArray[Any]  # [H, W, 3 or 4], uint8 or uint16


def list_images(
    folder: Path, suffixes: Sequence[str] = SUFFIXES, recursive: bool = False
) -> list[Path]:
    """List the files of a folder with these suffixes, sorted by path.

    Args:
        folder: the folder.
        suffixes: in lower case, each with its dot.
        recursive: also list the files of all folders in it.

    Raises:
        UserError: the folder is missing or has no such file.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: check the path, see README's Data section")
    files = sorted(
        f
        for f in (folder.rglob("*") if recursive else folder.iterdir())
        # Skip hidden files: some systems write `._NAME` next to an image.
        if f.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in f.relative_to(folder).parts)
        and f.is_file()
    )
    if not files:
        raise UserError(
            f"nothing to read in {folder}: expected files ending in {', '.join(suffixes)}"
        )
    return files


def read_image(path: Path) -> Pixels:
    """Read an image, keeping its bit depth and alpha channel; see `read_photograph`."""
    return read_photograph(path)[0]


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
            return np.asarray(peak - pixels, pixels.dtype)
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


def write_image(path: Path, pixels: Pixels, tags: Tags | None = None, quality: int = 95) -> None:
    """Write pixels and tags atomically; see `utils.encode.encode`.

    Args:
        path: its suffix sets the format.
        pixels: [H, W, 3], or [H, W, 4] with alpha; RGB; uint8 or uint16.
        tags: of the image that the pixels were computed from, if any.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        UserError: the format cannot hold the image.
    """
    try:
        data = encode(path.suffix.lower(), pixels, tags or Tags(), quality)
    except (ValueError, OSError) as error:  # for example, WebP has at most 16383 pixels a side
        raise UserError(f"cannot write {path}: {error}") from None
    with replacing(path) as stream:
        stream.write(data)


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


def hstack(*images: Pixels, gap: int = 4) -> Pixels:
    """Concatenate images of the same height in a row, separated by white gaps."""
    peak = np.iinfo(images[0].dtype).max
    white = np.full((images[0].shape[0], gap, 3), peak, dtype=images[0].dtype)
    row: list[Pixels] = []
    for image in images:
        row += [white, image[..., :3]]
    return np.concatenate(row[1:], axis=1)
