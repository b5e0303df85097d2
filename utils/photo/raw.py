"""Read camera raw files, developed as the camera would."""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.photo.kinds import package_for
from utils.photo.tags import Tags, kept_exif


def read_raw(path: Path) -> tuple[NDArray[np.uint16], Tags]:
    """Develop a raw file with LibRaw: white balance of the camera, sRGB, upright, 16 bits.

    It is brightened until one value in a hundred is white, as dcraw does: cameras brighten, too.
    The EXIF data is that of the file if it is built like a TIFF, or else that of the JPEG preview
    inside.

    Returns:
        uint16 [H, W, 3], RGB. And the tags.

    Raises:
        UserError: rawpy is not installed.
        rawpy.LibRawError: the file is damaged, or of an unknown camera.
    """
    rawpy = package_for(path, "camera raw", "rawpy", "rawpy")
    with path.open("rb") as stream, rawpy.imread(stream) as raw:
        pixels = raw.postprocess(
            use_camera_wb=True,
            output_bps=16,
            output_color=rawpy.ColorSpace.sRGB,
            gamma=(2.4, 12.92),  # of sRGB
        )
        exif = _exif_of(path)
        if not exif:
            try:
                preview = raw.extract_thumb()
                with Image.open(BytesIO(preview.data)) as file:
                    exif = file.getexif()
            except Exception:  # no preview, or one of another kind
                exif = Image.Exif()
    tags = Tags(exif=kept_exif(exif, None))
    if not tags.exif:
        tags.notes.append("no EXIF data found in this kind of raw file")
    return pixels, tags


def _exif_of(path: Path) -> Image.Exif:
    exif = Image.Exif()
    try:
        with path.open("rb") as stream:
            exif.load_from_fp(stream)
    except Exception:  # not built like a TIFF
        return Image.Exif()
    return exif
