"""Write photographs with their tags."""

import io
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from utils.errors import UserError
from utils.files import replacing
from utils.photo import png
from utils.photo.colour import is_plain
from utils.photo.profiles import profile_of
from utils.photo.tags import EXIF, GPS, Tags, as_stored, shortened

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}


# The most bytes of each part of the tags that a format holds, where there is a limit.
LIMITS = {
    "JPEG": {"exif": 65_533, "xmp": 65_504, "comment": 65_533, "profile": 255 * 65_519},
    "TIFF": {"comment": 0},
    "WEBP": {"comment": 0},
    "BMP": {"exif": 0, "xmp": 0, "comment": 0, "profile": 0},
}
PARTS = {
    "profile": "colour profile",
    "exif": "EXIF data",
    "xmp": "XMP data",
    "comment": "comment",
    "dpi": "resolution",
}


def write_photograph(
    path: Path, pixels: NDArray[Any], tags: Tags | None = None, quality: int = 95
) -> None:
    """Write pixels and tags atomically; see `encode`.

    What the format cannot hold of the tags is left out, with a note in `tags.notes`.

    Args:
        path: its suffix sets the format.
        pixels: [H, W, 3], or [H, W, 4] with alpha; RGB; uint8 or uint16.
        tags: of the image that the pixels were computed from, if any.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        UserError: the format cannot hold the image.
    """
    suffix = path.suffix.lower()
    tags = _fitting(suffix, pixels, tags or Tags())
    try:
        data = encode(suffix, pixels, tags, quality)
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
        ValueError, OSError: the format has a limit that the image or its tags exceed.
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
    if kind == "PNG":
        return _png(pixels, tags)
    about = {"icc_profile": tags.profile, "exif": tags.exif, "dpi": tags.dpi, "xmp": tags.xmp}
    about["comment"] = tags.comment
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(
        stream,
        kind,
        quality=quality,
        subsampling="4:4:4",
        **{name: value for name, value in about.items() if value},
    )
    return stream.getvalue()


def _fitting(suffix: str, pixels: NDArray[Any], tags: Tags) -> Tags:
    """The tags that a format holds. Notes what is lost, of the picture, too, in `tags.notes`."""
    kind, notes, fits = FORMATS[suffix], tags.notes, tags
    if kind not in ("PNG", "TIFF") and pixels.dtype == np.uint16:
        notes.append("16 bits reduced to 8")
    if kind in ("JPEG", "BMP") and pixels.shape[2] == 4:
        notes.append("transparency laid over white")
    limits = LIMITS.get(kind, {})
    if kind == "JPEG" and len(tags.exif) > limits["exif"]:
        exif, lost = shortened(tags.exif, limits["exif"])
        notes.append(f"EXIF data of more than 64 KB, left out: {', '.join(lost)}")
        fits = replace(fits, exif=exif)
    profile = tags.profile
    if kind != "PNG" and not is_plain(dict(tags.chunks), profile):
        profile = profile_of(dict(tags.chunks), grey=tags.grey and kind != "WEBP")
        if kind == "BMP" or not profile:
            names = sorted(name.decode() for name, _ in tags.chunks if name in png.COLOUR)
            notes.append(f"colours may look different: {kind} does not hold {' '.join(names)}")
            profile = tags.profile
    fits = replace(fits, profile=profile, chunks=_fitting_chunks(kind, tags))
    for name, title in PARTS.items():
        if part := getattr(fits, name):
            alone: Any = {name: part}
            # WebP gets RGB, which the profile of a grey picture does not fit.
            grey = kind == "WEBP" and tags.grey and part is tags.profile
            too_long = name in limits and len(part) > limits[name]
            if grey or too_long or not _can_be_encoded(suffix, Tags(**alone)):
                notes.append(f"{title} left out: {kind} does not hold it")
                alone[name] = getattr(Tags(), name)
                fits = replace(fits, **alone)
    return fits


def _fitting_chunks(kind: str, tags: Tags) -> tuple[png.Chunk, ...]:
    """The chunks that a PNG may take over from another; other formats take none."""
    if kind == "PNG":
        # An editor may copy a chunk that it does not know if the fourth letter is a small one.
        fits = [c for c in tags.chunks if c[0] in png.COLOUR + png.TEXT or c[0][3] & 32]
    else:
        fits = []
        if texts := sum(name in png.TEXT for name, _ in tags.chunks):
            tags.notes.append(f"texts left out: {texts}")
    others = {name for name, _ in tags.chunks} - {name for name, _ in fits}
    if lost := others - set(png.COLOUR) - set(png.TEXT):
        names = sorted(name.decode("latin-1") for name in lost)
        tags.notes.append(f"PNG data left out: {' '.join(names)}")
    return tuple(fits)


def _can_be_encoded(suffix: str, part: Tags) -> bool:
    """Whether a format takes a part of the tags: it is tried on a single pixel."""
    try:
        return bool(encode(suffix, np.zeros((1, 1, 3), np.uint8), part, quality=95))
    except Exception:  # whatever the libraries raise; the picture must be written
        return False


def _png(pixels: NDArray[Any], tags: Tags) -> bytes:
    """PNG with 8 bits, or with 16, which Pillow cannot write in colour; OpenCV can."""
    if pixels.dtype == np.uint16:
        order = [2, 1, 0, 3][: pixels.shape[2]] if pixels.shape[2] > 1 else [0]
        data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., order]))[1].tobytes()
    else:
        stream = io.BytesIO()
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
        data = stream.getvalue()
    about = []
    if tags.profile:
        about.append(png.profile_chunk(tags.profile))
    if tags.dpi:
        per_metre = b"".join(round(dpi / 0.0254).to_bytes(4, "big") for dpi in tags.dpi)
        about.append((b"pHYs", per_metre + b"\x01"))
    if tags.exif:
        about.append((b"eXIf", tags.exif.removeprefix(b"Exif\0\0")))
    if tags.xmp:
        about.append(png.xmp_chunk(tags.xmp))
    if tags.comment:
        about.append((b"tEXt", b"Comment\0" + tags.comment.replace(b"\0", b"")))
    return png.join(data, (*about, *tags.chunks))


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
    if tags.xmp:
        table[700] = tags.xmp
    stream = io.BytesIO()
    table.save(stream)
    stream.write(data)
    return stream.getvalue()
