"""Write photographs with their tags."""

import io
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import putchunk
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from utils.errors import UserError
from utils.files import replacing
from utils.photo.tags import EXIF, GPS, Tags, as_stored

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}


def write_photograph(
    path: Path, pixels: NDArray[Any], tags: Tags | None = None, quality: int = 95
) -> None:
    """Write pixels and tags atomically; see `encode`.

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


def encode(suffix: str, pixels: NDArray[Any], tags: Tags, quality: int) -> bytes:
    """Encode an image with its tags.

    Formats that cannot hold an image get less of it: only PNG and TIFF hold 16 bits; only PNG, TIFF
    and WebP hold alpha (JPEG and BMP get the image over white); WebP holds no grey; BMP holds only
    the resolution.

    Args:
        suffix: a key of `FORMATS`.
        pixels: [H, W, 3], or [H, W, 4] with alpha; RGB; uint8 or uint16.
        tags: if they say grey, the mean of the three channels is written, except with 16 bits and
            alpha, which the libraries cannot read back.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        ValueError, OSError: the format has a limit that the image exceeds.
    """
    kind = FORMATS[suffix]
    if kind not in ("PNG", "TIFF") and pixels.dtype == np.uint16:
        pixels = np.round(pixels / 257).astype(np.uint8)
    if kind in ("JPEG", "BMP") and pixels.shape[2] == 4:
        opacity = pixels[..., 3:] / 255
        pixels = np.round(pixels[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    if tags.grey and (pixels.shape[2] == 3 or pixels.dtype == np.uint8):
        mean = pixels[..., :3].mean(axis=2, keepdims=True).round().astype(pixels.dtype)
        pixels = np.concatenate([mean, pixels[..., 3:]], axis=2)
    if kind == "TIFF":
        return _tiff(pixels, tags)
    if pixels.dtype == np.uint16:
        return _deep_png(pixels, tags)
    profile = None if kind == "WEBP" and tags.grey else tags.profile  # a grey profile fits no RGB
    about = {"icc_profile": profile, "exif": tags.exif, "dpi": tags.dpi}
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(
        stream,
        kind,
        quality=quality,
        subsampling="4:4:4",
        **{name: value for name, value in about.items() if value},
    )
    return stream.getvalue()


def _deep_png(pixels: NDArray[np.uint16], tags: Tags) -> bytes:
    """PNG with 16 bits, which Pillow cannot write in colour; OpenCV can, but without the tags."""
    order = [2, 1, 0, 3][: pixels.shape[2]] if pixels.shape[2] > 1 else [0]
    data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., order]))[1].tobytes()
    header = 33  # bytes of the signature and the first chunk, IHDR
    stream = io.BytesIO()
    stream.write(data[:header])
    if tags.profile:
        putchunk(stream, b"iCCP", b"ICC profile\0\0" + zlib.compress(tags.profile))
    if tags.dpi:
        per_metre = b"".join(round(dpi / 0.0254).to_bytes(4, "big") for dpi in tags.dpi)
        putchunk(stream, b"pHYs", per_metre + b"\x01")
    if tags.exif:
        putchunk(stream, b"eXIf", tags.exif.removeprefix(b"Exif\0\0"))
    stream.write(data[header:])
    return stream.getvalue()


def _tiff(pixels: NDArray[Any], tags: Tags) -> bytes:
    """TIFF with 8 or 16 bits, which Pillow cannot write compressed with EXIF, or 16-bit in colour.

    One strip, compressed with Deflate, of the differences between horizontal neighbours.
    """
    height, width, channels = pixels.shape
    differences = np.diff(pixels, axis=1, prepend=pixels.dtype.type(0))
    data = zlib.compress(differences.astype(pixels.dtype.newbyteorder("<")).tobytes())
    table = ImageFileDirectory_v2()
    if tags.exif:
        exif = Image.Exif()
        exif.load(tags.exif)
        for tag in exif:
            table[tag] = as_stored(exif.get_ifd(tag) if tag in (EXIF, GPS) else exif[tag])
    table[256], table[257] = width, height
    table[258] = (8 * pixels.itemsize,) * channels
    table[259], table[317] = 8, 2  # Deflate, horizontal differences
    table[262] = 2 if channels > 2 else 1  # RGB or grey
    table[273], table[278], table[279] = 0, height, len(data)  # the strip; Pillow adds the offset
    table[277] = channels
    if channels in (2, 4):
        table[338] = 2  # alpha
    if tags.dpi:
        table[282], table[283], table[296] = *tags.dpi, 2
    if tags.profile:
        table[34675] = tags.profile
    stream = io.BytesIO()
    table.save(stream)
    stream.write(data)
    return stream.getvalue()
