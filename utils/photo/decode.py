"""Read photographs: 8 or 16 bits, grey, palette, CMYK, alpha, orientation, tags."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import UserError
from utils.photo import png
from utils.photo.colour import coded_colours, to_srgb
from utils.photo.deep import bits_per_channel, decode_deep
from utils.photo.kinds import RAW, package_for
from utils.photo.raw import read_raw
from utils.photo.tags import Tags, read_orientation, read_tags
from utils.pixels import Pixels

# Kinds whose first picture is the photograph, and the others its previews, parts and relatives.
FIRST_COUNTS = {"MPO": "further pictures", "HEIF": "further pictures", "PSD": "layers (flattened)"}


def read_photograph(path: Path) -> tuple[Pixels, Tags]:
    """Read an image with its tags, keeping its bit depth and alpha channel.

    The EXIF orientation is applied. Grey and palette images become RGB; CMYK and LAB become sRGB
    through the colour profile of the file. Camera raw is developed; see `utils.photo.raw`.

    Returns:
        [H, W, 3], or [H, W, 4] with alpha; RGB; uint8, or uint16 for files of more than 8 bits. And
        the tags, whose notes tell what was left out.

    Raises:
        UserError: the file is missing, truncated, not an image, or of an unsupported kind.
    """
    with _reading(path):
        if path.suffix.lower() in RAW:
            return read_raw(path)
        with _opened(path) as (file, chunks):
            orientation = read_orientation(file)
            notes = _check(path, file)
            bits = bits_per_channel(path, file)
            file.load()  # unlike OpenCV, Pillow detects truncated files
            tags = read_tags(file, chunks, *notes)
            if file.mode in ("CMYK", "LAB"):
                pixels, note = to_srgb(file)
                tags = replace(tags, profile=None, chunks=())
                tags.notes.insert(0, note)
            elif bits > 8:
                pixels = decode_deep(path, file, bits)  # Pillow would reduce colour to 8 bits
            else:
                alpha = "A" in file.getbands() or "transparency" in file.info
                pixels = np.array(file.convert("RGBA" if alpha else "RGB"))
            if bits > 8 and pixels.dtype == np.uint8:
                tags.notes.append(f"{bits} bits reduced to 8")
            elif bits == 8 and file.format == "TIFF":
                orientation = 1  # Pillow has applied it
            if file.format == "JXL" and not getattr(file, "jpeg", False):
                orientation = 1  # libjxl has applied its own, which counts
            return _upright(pixels, orientation), tags


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image in pixels, as stored.

    Raises:
        UserError: see `read_photograph`.
    """
    with _reading(path), _opened(path) as (file, _):
        return file.size


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever the decoders raise into a `UserError`."""
    try:
        # Pillow warns of odd tags.
        with warnings.catch_warnings(action="ignore"):
            yield
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
            "another kind of docs/photographs.md, with 8 or 16 bits per channel"
        ) from None
    except Exception as error:  # the decoders raise many types
        raise UserError(f"cannot read {path}: truncated or damaged ({error})") from None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, tuple[png.Chunk, ...]]]:
    """Open an image, by its first bytes; and its colours and texts as the chunks of a PNG."""
    with path.open("rb") as stream:
        head = stream.read(2**16)
        if head.startswith(png.SIGNATURE):
            stream.seek(0)
            pixels, about = png.split(stream.read())
            with Image.open(BytesIO(pixels)) as file:
                yield file, _describe(file, about)
            return
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis"):
        package_for(path, "HEIF", "pillow_heif", "pillow-heif").register_heif_opener()
    elif head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        package_for(path, "JPEG XL", "pillow_jxl", "pillow-jxl-plugin")
    with Image.open(path) as file:
        coded = None if file.info.get("icc_profile") else coded_colours(head)
        yield file, ((b"cICP", coded),) if coded else ()


def _describe(file: Image.Image, about: list[png.Chunk]) -> tuple[png.Chunk, ...]:
    """Tell Pillow's image its profile, EXIF and XMP data; return the other colours and texts."""
    chunks = []
    for kind, content in about:
        if kind == b"iCCP" and (profile := png.profile_of(content)):
            file.info["icc_profile"] = profile
        elif kind == b"eXIf":
            file.info["exif"] = b"Exif\0\0" + content
        elif kind in png.TEXT:
            keyword, text = png.text_of(kind, content)
            if keyword == png.XMP:
                file.info["xmp"] = text
            elif keyword.startswith(b"Raw profile type "):  # as ImageMagick writes EXIF data
                file.info[keyword.decode("latin-1")] = (text or b"").decode("latin-1")
            else:
                chunks.append((kind, content))
        elif kind not in png.MINOR:
            chunks.append((kind, content))
    return tuple(chunks)


def _check(path: Path, file: Image.Image) -> list[str]:
    """Refuse images that have no derained counterpart; note the pictures that are left out."""
    frames = getattr(file, "n_frames", 1)
    if frames == 1:
        return []
    if file.format in FIRST_COUNTS:
        return [f"{FIRST_COUNTS[file.format]} left out: {frames - 1}"]
    if file.format == "TIFF" and _are_previews(file, frames):
        return [f"previews left out: {frames - 1}"]
    raise UserError(
        f"cannot read {path}: it holds {frames} images; save the one you want, or convert an "
        "animation to MP4"
    )


def _are_previews(file: Any, frames: int) -> bool:
    """Whether all pages of a TIFF but the first say that they are the first in small."""
    kinds = []
    for page in range(1, frames):
        file.seek(page)
        kinds.append(file.tag_v2.get(254, 0))  # NewSubfileType
    file.seek(0)
    return all(kind & 1 for kind in kinds)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
