"""Decode photographs of more than 8 bits per channel, which Pillow would reduce to 8."""

import importlib
import io
import re
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tifffile import COMPRESSION, TiffFile

from utils.errors import UserError
from utils.photo import png
from utils.photo.tags import ORIENTATION
from utils.pixels import Pixels


def bits_per_channel(path: Path, file: Image.Image) -> int:
    """Bits per channel of an open image as it is stored, if it has more than 8; or else 8."""
    if file.format == "TIFF":
        bits = getattr(file, "tag_v2", {}).get(258, (8,))  # BitsPerSample
        return max(8, *(bits if isinstance(bits, tuple) else (bits,)))
    if file.format == "HEIF":
        return max(8, file.info.get("bit_depth", 8))
    with path.open("rb") as stream:
        head = stream.read(2**16)
    if file.format == "PNG":
        return max(8, head[24])  # in IHDR
    if file.format == "PPM":
        header = re.match(rb"P[56](?:\s+|#[^\n]*\n)+\d+\s+\d+\s+(\d+)", head)
        return max(8, int(header[1]).bit_length()) if header else 8  # of the largest number
    if file.format == "AVIF":
        _, found, box = head.partition(b"av1C")
        return (8 + 2 * (box[2] >> 6 & 1) + 2 * (box[2] >> 5 & 1)) if found else 8
    if file.format == "JPEG2000":
        _, found, sizes = head.partition(b"\xff\x4f\xff\x51")  # the marker SIZ
        return max(8, (sizes[38] & 0x7F) + 1) if found else 8
    if file.format == "JXL":
        return _bits_of_jpeg_xl(head)
    return 16 if file.mode[0] in "IF" else 8


def _bits_of_jpeg_xl(head: bytes) -> int:
    """Bits per channel in the header of a JPEG XL image; ISO/IEC 18181-1, annex D."""
    for box, skipped in ((b"jxlc", 0), (b"jxlp", 4)):  # the codestream, whole or in parts
        _, found, data = head.partition(box)
        head = data[skipped:] if found else head
    bits = int.from_bytes(head[2:64], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    small = take(1)
    lengths = (9, 13, 18, 30)
    take(5 if small else lengths[take(2)])  # height
    if not take(3):  # else the width follows from the height
        take(5 if small else lengths[take(2)])
    if take(1):  # all is as usual
        return 8
    if take(1) and (take(3), take(3))[1]:  # orientation; and another size, preview or animation
        return 8  # unknown
    if take(1):
        return 16  # floating-point
    kind = take(2)
    return max(8, (8, 10, 12)[kind] if kind < 3 else 1 + take(6))


def decode_deep(path: Path, file: Image.Image, bits: int) -> Pixels:
    """Decode pixels of more than 8 bits, without the orientation.

    Args:
        path: of the image.
        file: the image, open.
        bits: see `bits_per_channel`. 9 to 15 are scaled to 16.

    Returns:
        uint16, or uint8 where the decoder has reduced them; [H, W, 3] or [H, W, 4]; RGB.

    Raises:
        UserError: the numbers are of another kind, for example floating-point.
    """
    pixels: Pixels | None
    if file.format == "HEIF":
        heif = importlib.import_module("pillow_heif").open_heif(path, convert_hdr_to_8bit=False)
        pixels = np.array(heif[heif.primary_index])  # in 16 bits
    elif file.format == "TIFF":
        pixels = _decode_tiff(path)  # OpenCV scales them
    elif file.format in ("PNG", "AVIF", "JPEG2000", "PPM"):
        data = path.read_bytes()
        pixels = _opencv(png.split(data).pixels if file.format == "PNG" else data)
        if pixels is not None and pixels.dtype == np.uint16 and bits < 16:
            pixels = np.round(pixels * (65535 / (2**bits - 1))).astype(np.uint16)
    elif file.mode[0] in "IF":
        pixels = np.array(file)  # grey, which Pillow keeps
    else:
        pixels = np.array(file.convert("RGBA" if "A" in file.getbands() else "RGB"))
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
