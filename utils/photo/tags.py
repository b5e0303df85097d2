"""Tags of an image file: colour profile, EXIF data, resolution."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from PIL import Image

ORIENTATION = 0x0112
EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005  # tables of their own
# Kept of the main table: description, camera, resolution, software, date, author, rating,
# copyright, and the two tables above. In a TIFF the same table also holds the pixels' layout.
KEPT = {0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x4746, 0x4749}
KEPT |= {0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F, EXIF, GPS}


class Tags(NamedTuple):
    """Facts about an image that do not change when it is derained."""

    grey: bool = False
    """The file has one channel; its three channels in memory are equal."""
    profile: bytes | None = None
    """ICC profile: the colour space of the pixels."""
    exif: bytes = b""
    """Camera, date, place ... for pixels that are upright; without the thumbnail."""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical resolution in pixels per inch."""


def read_orientation(file: Image.Image) -> int:
    """EXIF orientation of an open image, 1 to 8; 1, upright, if there is none or it is damaged.

    Call it before the pixels are loaded: Pillow turns a TIFF upright when it loads it.
    """
    try:
        return int(file.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever a damaged table makes Pillow raise
        return 1


def read_tags(file: Image.Image) -> Tags:
    """Read the tags of an open image. Damaged EXIF data is left out."""
    across, down = file.info.get("dpi", (0, 0))
    dpi = (float(across), float(down)) if min(across, down) > 1 else None  # 1: TIFF without unit
    return Tags(
        grey=file.mode in ("1", "L", "LA", "La") or file.mode.startswith("I;16"),
        profile=file.info.get("icc_profile") or None,
        exif=_exif(file, dpi),
        dpi=dpi,
    )


def as_stored(value: Any) -> Any:
    """A value of an EXIF table, or a whole table, with its text as the bytes in the file.

    The text may be UTF-8 or Latin-1. Pillow reads it as Latin-1, and would write ASCII.
    """
    if isinstance(value, Mapping):
        return {tag: as_stored(entry) for tag, entry in value.items()}
    plain = not isinstance(value, str) or value.isascii()
    return value if plain else value.encode("latin-1")


def _exif(file: Image.Image, dpi: tuple[float, float] | None) -> bytes:
    kept = Image.Exif()
    try:
        old = file.getexif()
        for tag in KEPT & set(old):
            kept[tag] = as_stored(old.get_ifd(tag) if tag in (EXIF, GPS) else old[tag])
        if dpi:  # WebP stores it only here
            kept[0x011A], kept[0x011B], kept[0x0128] = *dpi, 2
        if not kept:
            return b""
        kept.get(EXIF, {}).pop(INTEROPERABILITY, None)
        kept[ORIENTATION] = 1
        return kept.tobytes()
    except Exception:  # as above
        return b""
