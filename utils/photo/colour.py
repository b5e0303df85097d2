"""Colours: CMYK and LAB become sRGB, and what the chunks of a PNG say of colours."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

SRGB_GAMMA = 45455  # what a PNG's gAMA says of 1 / 2.2
SRGB_PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # and cHRM


def to_srgb(file: Image.Image) -> tuple[NDArray[Any], str]:
    """Convert an image in CMYK or LAB to sRGB, through its colour profile if it has one.

    Returns:
        uint8 [H, W, 3], and a note.
    """
    mode = file.mode
    profile: Any = None
    try:
        if mode == "LAB":
            profile = ImageCms.createProfile("LAB")
        elif data := file.info.get("icc_profile"):
            profile = ImageCms.ImageCmsProfile(BytesIO(data))
        if profile:
            converted = ImageCms.profileToProfile(
                file,
                profile,
                ImageCms.createProfile("sRGB"),
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                "RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            return np.array(converted), f"{mode} converted to sRGB"
    except (ImageCms.PyCMSError, OSError):
        pass  # a damaged profile, or one of other colours
    how = "without a colour profile" if not file.info.get("icc_profile") else "not by its profile"
    return np.array(file.convert("RGB")), f"{mode} converted to sRGB, {how}"


def coded_colours(head: bytes) -> bytes | None:
    """The colours of a HEIF or AVIF file that has no profile, as a PNG's cICP chunk has them.

    Args:
        head: the first bytes of the file, with the box `colr`.
    """
    _, found, box = head.partition(b"colrnclx")
    if head[4:8] != b"ftyp" or not found or len(box) < 4:
        return None
    primaries, curve = box[1], box[3]  # of 16 bits each; ITU-T H.273 names less than 256
    return None if 2 in (primaries, curve) else bytes([primaries, curve, 0, 1])  # 2: unknown


def is_plain(chunks: dict[bytes, bytes], profile: bytes | None) -> bool:
    """Whether a picture looks the same without the colour chunks of its PNG.

    Args:
        chunks: by kind.
        profile: ICC profile of the picture, which is kept and comes before all but cICP.
    """
    if cicp := chunks.get(b"cICP"):
        return cicp[0] == 1 and cicp[1] in (1, 6, 13)  # sRGB, and how video writes it
    if profile or b"sRGB" in chunks:
        return True
    gamma, primaries = chunks.get(b"gAMA"), chunks.get(b"cHRM")
    if gamma and abs(int.from_bytes(gamma, "big") - SRGB_GAMMA) > 500:
        return False
    values = (
        [int.from_bytes(primaries[i : i + 4], "big") for i in range(0, 32, 4)] if primaries else []
    )
    return all(abs(a - b) < 100 for a, b in zip(values, SRGB_PRIMARIES, strict=False))
