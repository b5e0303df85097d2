"""Make the ICC profile of colours that a PNG describes by numbers. ICC.1:2001-04, a matrix profile.

Other formats hold no gAMA, cHRM or cICP chunk, but they hold a profile.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

D50 = (0.9642, 1.0, 0.8249)  # XYZ of the white of every profile
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
D65 = (0.3127, 0.3290)
# x and y of white, red, green and blue, by their number in ITU-T H.273.
PRIMARIES = {
    1: (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),  # BT.709, sRGB
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # P3 of displays
}
EXPONENTS = {4: 2.2, 5: 2.8, 8: 1.0}  # of curves, by their number in H.273
SRGB_LIKE = (1, 6, 13, 14, 15)  # pictures with a video's curve are shown as with that of sRGB


def profile_of(chunks: Mapping[bytes, bytes], grey: bool) -> bytes | None:
    """The ICC profile that says what the colour chunks of a PNG say.

    Args:
        chunks: by kind.
        grey: make a profile for one channel.

    Returns:
        None if a profile of this kind cannot say it: the curves of HDR.
    """
    if cicp := chunks.get(b"cICP"):
        if cicp[0] not in PRIMARIES or cicp[1] not in (*EXPONENTS, *SRGB_LIKE):
            return None
        return _profile(PRIMARIES[cicp[0]], _curve(EXPONENTS.get(cicp[1])), grey)
    gamma = int.from_bytes(chunks.get(b"gAMA", b""), "big")
    chrm, places = chunks.get(b"cHRM", b""), PRIMARIES[1]
    if len(chrm) == 32:
        places = tuple(value / 100_000 for value in struct.unpack(">8I", chrm))
    return _profile(places, _curve(100_000 / gamma if gamma else None), grey)


def _profile(places: Sequence[float], curve: bytes, grey: bool) -> bytes | None:
    try:
        columns = _matrix(places)
    except (np.linalg.LinAlgError, ZeroDivisionError):  # damaged numbers
        return None
    tags = {b"desc": _description(b"made of a PNG's colours"), b"cprt": b"text\0\0\0\0none\0"}
    tags[b"wtpt"] = _xyz(D50)
    if grey:
        tags[b"kTRC"] = curve
    else:
        for name, column in zip((b"r", b"g", b"b"), columns.T, strict=True):
            tags[name + b"XYZ"], tags[name + b"TRC"] = _xyz(column), curve
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(data), b"", 0x02400000, b"mntr", b"", b"XYZ ")
    header = header[:16] + (b"GRAY" if grey else b"RGB ") + header[20:]
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # the same profile every time
    header += date + b"acsp" + bytes(28) + _xyz(D50)[8:]
    return header + bytes(128 - len(header)) + table + data


def _matrix(places: Sequence[float]) -> NDArray[Any]:
    """XYZ of red, green and blue as columns, seen with a white of D50."""
    white, *colours = (
        np.array([x / y, 1, (1 - x - y) / y])
        for x, y in zip(places[::2], places[1::2], strict=True)
    )
    columns = np.stack(colours, axis=1)
    columns = columns * np.linalg.solve(columns, white)
    scale = (BRADFORD @ D50) / (BRADFORD @ white)
    return np.linalg.solve(BRADFORD, scale[:, None] * (BRADFORD @ columns))


def _curve(exponent: float | None) -> bytes:
    """The tone curve: a power, or that of sRGB."""
    if exponent is not None:
        return struct.pack(">4s2IH2x", b"curv", 0, 1, min(round(256 * exponent), 65535))
    x = np.linspace(0, 1, 1024)
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return struct.pack(">4s2I", b"curv", 0, 1024) + np.round(65535 * light).astype(">u2").tobytes()


def _xyz(values: Any) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * float(value)) for value in values))


def _description(text: bytes) -> bytes:
    return b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(1 + 4 + 4 + 2 + 1 + 67)
