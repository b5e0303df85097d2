"""The chunks of a PNG: its pixels, and what stands beside them. W3C, PNG Specification 3, part 11.

Pillow refuses a picture because of a text or a profile of more than 1 MB beside it, or a damaged
one. So the decoders get a PNG without such chunks, and these are read here.
"""

import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import NamedTuple

from PIL.PngImagePlugin import putchunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = 33  # bytes of the signature and the first chunk, IHDR
LARGEST = 64 * 2**20  # bytes that a compressed profile or text may have when it is unpacked

COLOUR = (b"cICP", b"mDCV", b"cLLI", b"sRGB", b"gAMA", b"cHRM")  # what the numbers of pixels mean
TEXT = (b"tEXt", b"zTXt", b"iTXt")
DECODED = (b"tRNS", b"acTL", b"fcTL", b"fdAT")  # these belong to the pixels
MINOR = (b"bKGD", b"hIST", b"sBIT", b"sPLT", b"tIME", b"oFFs", b"pCAL", b"sCAL", b"orNT", b"vpAg")
XMP = b"XML:com.adobe.xmp"

Chunk = tuple[bytes, bytes]  # its kind and its data


class Split(NamedTuple):
    """A PNG in two parts."""

    pixels: bytes
    """A PNG without what stands beside the pixels, except the resolution."""
    about: list[Chunk]
    """Colours, profile, EXIF data, text and other chunks; of each colour chunk the first."""


def split(data: bytes) -> Split:
    """Part the pixels of a PNG from what stands beside them.

    A truncated file stays truncated, so that the decoders complain.
    """
    kept, about = [data[:8]], dict[bytes, Chunk]()
    for i, (kind, start, end) in enumerate(_chunks(data)):
        content = data[start + 8 : end - 4]
        critical = not kind[0] & 32 or kind in DECODED
        if critical or (kind == b"pHYs" and len(content) == 9):
            kept.append(data[start:end])
        elif end <= len(data):
            about.setdefault(kind if kind in COLOUR else b"%d" % i, (kind, content))
    return Split(b"".join(kept), list(about.values()))


def join(data: bytes, about: Iterable[Chunk]) -> bytes:
    """Insert chunks behind the first, where all of them may stand."""
    stream = BytesIO()
    stream.write(data[:HEADER])
    for kind, content in about:
        putchunk(stream, kind, content)
    stream.write(data[HEADER:])
    return stream.getvalue()


def profile_of(chunk: bytes) -> bytes | None:
    """The ICC profile in an iCCP chunk; None if it is damaged or larger than `LARGEST`."""
    return _inflate(chunk.partition(b"\0")[2][1:])


def profile_chunk(profile: bytes) -> Chunk:
    """The chunk that holds an ICC profile."""
    return b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)


def xmp_chunk(xmp: bytes) -> Chunk:
    """The chunk that holds XMP data."""
    return b"iTXt", XMP + bytes(5) + xmp


def text_of(kind: bytes, content: bytes) -> tuple[bytes, bytes | None]:
    """The keyword and the text of a text chunk; no text if it is damaged or too large."""
    keyword, _, rest = content.partition(b"\0")
    if kind == b"tEXt":
        return keyword, rest
    if kind == b"zTXt":
        return keyword, _inflate(rest[1:])
    parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
    return keyword, _inflate(parts[-1]) if rest[:1] == b"\1" else parts[-1]


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind, start and end of each chunk; the end may lie behind that of the file."""
    start = len(SIGNATURE)
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        yield (kind if len(kind) == 4 else b"IEND"), start, end
        start = end


def _inflate(data: bytes) -> bytes | None:
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, LARGEST)
    except zlib.error:
        return None
    return text if stream.eof else None
