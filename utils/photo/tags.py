"""Tags of an image file: colour profile, EXIF and XMP data, resolution."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import ExifTags, Image

from utils.photo.png import Chunk

ORIENTATION = 0x0112
MAKER_NOTE = 0x927C
EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005  # tables of their own
# Kept of the main table: description, camera, resolution, software, date, author, rating,
# copyright, and the two tables above. In a TIFF the same table also holds the pixels' layout.
KEPT = {0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x4746, 0x4749}
KEPT |= {0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F, EXIF, GPS}
IPTC = 0x0404  # of Photoshop's resources in a JPEG
IPTC_TIFF = 33723
GAIN_MAP = (b"GainMap", b"hdrgm:")  # in the XMP data of a photograph with a second one for HDR
CLIP = (b"MotionPhoto", b"MicroVideo")  # with a video behind it


@dataclass(frozen=True)
class Tags:
    """Facts about an image that do not change when it is derained."""

    grey: bool = False
    """The file has one channel; its three channels in memory are equal."""
    profile: bytes | None = None
    """ICC profile: the colour space of the pixels."""
    exif: bytes = b""
    """Camera, date, place ... for pixels that are upright; without the thumbnail."""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical resolution in pixels per inch."""
    xmp: bytes = b""
    """Title, keywords, rating, edits ... as XML, for pixels that are upright."""
    comment: bytes = b""
    """The comment of a JPEG."""
    chunks: tuple[Chunk, ...] = ()
    """Colours and texts as in a PNG, except the ICC profile and XMP."""
    notes: list[str] = field(default_factory=list)
    """What was lost or changed when the photograph was read and written, for the user."""


def read_orientation(file: Image.Image) -> int:
    """EXIF orientation of an open image, 1 to 8; 1, upright, if there is none or it is damaged.

    Call it before the pixels are loaded: Pillow turns a TIFF upright when it loads it.
    """
    try:
        return int(file.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever a damaged table makes Pillow raise
        return 1


def read_tags(file: Image.Image, chunks: tuple[Chunk, ...] = (), *notes: str) -> Tags:
    """Read the tags of an open image. Damaged EXIF data is left out.

    Args:
        file: the image.
        chunks: see `Tags`.
        notes: the first of `Tags.notes`.
    """
    across, down = file.info.get("dpi", (0, 0))
    dpi = (float(across), float(down)) if min(across, down) > 1 else None  # 1: TIFF without unit
    tags = Tags(
        grey=file.mode in ("1", "L", "LA", "La", "I") or file.mode.startswith("I;16"),
        profile=file.info.get("icc_profile") or None,
        exif=_exif(file, dpi),
        dpi=dpi,
        xmp=_xmp(file),
        comment=_bytes(file.info.get("comment")) if file.format in ("JPEG", "MPO") else b"",
        chunks=chunks,
        notes=list(notes),
    )
    tags.notes.extend(_lost(file, tags))
    return tags


def as_stored(value: Any) -> Any:
    """A value of an EXIF table, or a whole table, with its text as the bytes in the file.

    The text may be UTF-8 or Latin-1. Pillow reads it as Latin-1, and would write ASCII.
    """
    if isinstance(value, Mapping):
        return {tag: as_stored(entry) for tag, entry in value.items()}
    plain = not isinstance(value, str) or value.isascii()
    return value if plain else value.encode("latin-1")


def kept_exif(old: Image.Exif, dpi: tuple[float, float] | None) -> bytes:
    """What is kept of EXIF data, for an upright image; entries that are damaged are left out.

    Args:
        old: the EXIF data of the source.
        dpi: resolution in pixels per inch, if known.
    """
    kept = Image.Exif()
    for tag in KEPT & set(old):
        if tag not in (EXIF, GPS):
            kept[tag] = as_stored(old[tag])
            continue
        table = as_stored(old.get_ifd(tag))
        table.pop(INTEROPERABILITY, None)
        kept[tag] = table
    if dpi:  # WebP stores it only here
        kept[0x011A], kept[0x011B], kept[0x0128] = *dpi, 2
    if not kept:
        return b""
    kept[ORIENTATION] = 1
    try:
        return kept.tobytes()
    except Exception:  # whatever an odd entry makes Pillow raise
        for table, tag in list(_entries(kept)):
            if not _can_be_stored(tag, table[tag]):
                del table[tag]
        return kept.tobytes()


def shortened(exif: bytes, limit: int) -> tuple[bytes, list[str]]:
    """EXIF data of at most so many bytes, and the names of the entries that are left out.

    First goes the maker note, which few programs can read, and then the largest entries.
    """
    short, lost = Image.Exif(), list[str]()
    short.load(exif)
    for tag in (EXIF, GPS):
        if tag in short:
            short[tag] = short.get_ifd(tag)
    for table, tag in sorted(_entries(short), key=_worth):
        if len(exif) <= limit:
            break
        del table[tag]
        exif = short.tobytes()
        names = ExifTags.GPSTAGS if table is short.get(GPS) else ExifTags.TAGS
        lost.append(names.get(tag, str(tag)))
    return exif, lost


def _entries(exif: Image.Exif) -> Iterator[tuple[Any, int]]:
    """The entries of all tables, each as the table that holds it and its number."""
    for tag in list(exif):
        if tag in (EXIF, GPS):
            yield from ((exif[tag], entry) for entry in exif[tag])
        else:
            yield exif, tag


def _worth(entry: tuple[Any, int]) -> tuple[bool, int]:
    table, tag = entry
    size = len(table[tag]) if isinstance(table[tag], bytes | str) else 8 * len(str(table[tag]))
    return tag != MAKER_NOTE, -size


def _can_be_stored(tag: int, value: Any) -> bool:
    alone = Image.Exif()
    alone[tag] = value
    try:
        return bool(alone.tobytes())
    except Exception:  # as above
        return False


def _exif(file: Image.Image, dpi: tuple[float, float] | None) -> bytes:
    try:
        return kept_exif(file.getexif(), dpi)
    except Exception:  # whatever a damaged table makes Pillow raise
        return b""


def _xmp(file: Image.Image) -> bytes:
    """XMP data for an upright image. If it points to data that is left out, it is left out, too."""
    xmp = _bytes(file.info.get("xmp"))
    if any(word in xmp for word in GAIN_MAP + CLIP):
        return b""
    for opening, closing in ((rb'tiff:Orientation="', b'"'), (rb"tiff:Orientation>", b"<")):
        xmp = re.sub(opening + rb"[2-8]" + closing, opening + b"1" + closing, xmp)
    return xmp


def _bytes(value: Any) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value or b""


def _lost(file: Image.Image, tags: Tags) -> list[str]:
    """Notes about what stands beside the picture and is not among the tags."""
    notes = []
    if file.info.get("exif") and not tags.exif:
        notes.append("damaged EXIF data left out")
    xmp, segments = _bytes(file.info.get("xmp")), [d for _, d in getattr(file, "applist", ())]
    gain_map = any(segment.startswith(b"urn:iso:std:iso:ts:21496") for segment in segments)
    if gain_map or any(word in xmp for word in GAIN_MAP):
        notes.append("gain map (for HDR displays) left out")
    if any(word in xmp for word in CLIP):
        notes.append("video of a motion photo left out")
    if any(segment.startswith(b"http://ns.adobe.com/xmp/extension/") for segment in segments):
        notes.append("extended XMP data left out")
    photoshop = file.info.get("photoshop")
    if (isinstance(photoshop, dict) and IPTC in photoshop) or IPTC_TIFF in getattr(
        file, "tag_v2", ()
    ):
        notes.append("IPTC data left out")
    depth, others = file.info.get("depth_images"), file.info.get("aux")  # of HEIF
    if depth or others:
        names = sorted(str(name).rpartition(":")[2] for name in others or ())
        notes.append(f"auxiliary pictures left out: {', '.join(names + ['depth'] * bool(depth))}")
    return notes
