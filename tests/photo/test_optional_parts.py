"""What stands beside a picture never costs it, and what is written can be read again."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from utils.image import Pixels, read_image
from utils.photo import png
from utils.photo.decode import read_photograph, size_of
from utils.photo.encode import write_photograph
from utils.photo.tags import Tags

Picture = Callable[..., Pixels]

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="rain"/></x:xmpmeta>'
UPRIGHT = XMP.replace(b'"6"', b'"1"')
LINEAR = (b"gAMA", (100_000).to_bytes(4, "big"))
P3 = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
HDR = (b"cICP", bytes([9, 16, 0, 1]))  # BT.2020, PQ


def profile_of(size: int, noise: bool = False) -> bytes | None:
    """A profile of so many bytes, or none; padded with zeros or with noise."""
    if not size:
        return None
    fill = random.Random(0).randbytes(size) if noise else bytes(size)
    data = SRGB + fill[len(SRGB) :]
    return len(data).to_bytes(4, "big") + data[4:]


def exif_of(size: int) -> bytes:
    """EXIF data with an author, and a maker note of so many bytes."""
    exif = Image.Exif()
    exif[0x013B], exif[0x0112] = "Author", 1
    exif[0x8769] = {0x9003: "2026:11:21 12:00:00", 0x927C: bytes(size)}
    return exif.tobytes()


def pixels_of(depth: type[np.uint8], channels: int) -> NDArray[Any]:
    y, x = np.mgrid[:16, :16]
    values = np.stack([x * 9, y * 9, x + y, 255 - x][:channels], -1).astype(np.uint8)
    return values if depth == np.uint8 else values.astype(depth) * 257


@settings(max_examples=40, deadline=None)
@given(
    profile=st.sampled_from([0, 588, 3_000, 70_000, 1_048_000, 1_500_000, 3_000_000]),
    noise=st.booleans(),
    maker_note=st.integers(0, 200 * 1024) | st.integers(65_200, 65_700),
    xmp=st.sampled_from([0, 100, 65_400, 65_600, 300_000]),
    text=st.sampled_from([0, 10, 1_100_000, 3_000_000]),
    depth=st.sampled_from([np.uint8, np.uint16]),
    channels=st.sampled_from([3, 4]),
    grey=st.booleans(),
    suffix=st.sampled_from([".png", ".jpg", ".tif", ".webp", ".bmp"]),
)
def test_what_is_written_can_be_read_again(
    profile: int,
    noise: bool,
    maker_note: int,
    xmp: int,
    text: int,
    depth: type[np.uint8],
    channels: int,
    grey: bool,
    suffix: str,
) -> None:
    pixels = pixels_of(depth, channels)
    tags = Tags(
        grey=grey,
        profile=profile_of(profile, noise),
        exif=exif_of(maker_note),
        xmp=UPRIGHT + bytes(xmp).replace(b"\0", b" "),
        comment=b"a comment",
        chunks=((b"zTXt", b"Title\0\0" + zlib.compress(bytes(text))),),
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write_photograph(path, pixels, tags)
        again, read = read_photograph(path)
        assert size_of(path) == (16, 16)
    assert again.shape[:2] == pixels.shape[:2]
    deep_alpha = suffix in (".png", ".tif") and depth == np.uint16 and channels == 4
    assert read.grey == (grey and suffix != ".webp" and not deep_alpha)
    if suffix in (".png", ".tif") and not grey:
        assert np.array_equal(again, pixels)
    noted = " ".join(tags.notes)
    whole = len(read.exif) >= maker_note or "MakerNote" in noted
    for title, kept in (
        ("profile", read.profile == tags.profile),
        ("EXIF data", b"Author" in read.exif and whole),
        ("XMP data", read.xmp == tags.xmp),
        ("comment", suffix == ".png" or read.comment == tags.comment),
        ("texts", read.chunks[-1:] == tags.chunks),
    ):
        assert kept != (f"{title} left out" in noted), (title, kept, noted)
    if suffix != ".bmp":
        assert b"Author" in read.exif
        assert b"2026:11:21" in read.exif


def test_much_exif_data_in_a_jpeg(tmp_path: Path, picture: Picture) -> None:
    """The maker note goes first, and then the largest entries."""
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = "d" * 50_000, "Author"
    exif[0x8769] = {0x927C: bytes(100), 0x9286: b"ASCII\0\0\0" + b"c" * 40_000}
    tags = Tags(exif=exif.tobytes())
    write_photograph(tmp_path / "a.jpg", picture(), tags)
    assert tags.notes == ["EXIF data of more than 64 KB, left out: MakerNote, ImageDescription"]
    with Image.open(tmp_path / "a.jpg") as file:
        assert file.getexif()[0x013B] == "Author"
        assert set(file.getexif().get_ifd(0x8769)) == {0x9286}


def test_a_part_that_the_library_refuses_is_left_out(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Image.Image.save

    def refuse(image: Image.Image, *arguments: Any, **options: Any) -> None:
        if "icc_profile" in options:
            raise RuntimeError("a fault of a library")
        save(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", refuse)
    tags = Tags(profile=SRGB, exif=exif_of(10))
    write_photograph(tmp_path / "a.jpg", picture(), tags)
    assert tags.notes == ["colour profile left out: JPEG does not hold it"]
    assert read_photograph(tmp_path / "a.jpg")[1].exif


def test_damaged_chunks_do_not_cost_the_picture(tmp_path: Path, picture: Picture) -> None:
    """Pillow alone refuses each of these files, but the last two."""
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "PNG")
    too_much = zlib.compress(bytes(2_000_000))
    for number, chunk in enumerate(
        [
            (b"iCCP", b"name\0\0" + too_much),
            (b"zTXt", b"Comment\0\0" + too_much),
            (b"iTXt", b"Comment\0\1\0\0\0" + too_much),
            (b"iCCP", b"name\0\7broken"),
            (b"pHYs", b"\0"),
            (b"gAMA", b""),
            (b"iCCP", b"name\0\0broken"),
            (b"eXIf", b"broken"),
        ]
    ):
        path, target = tmp_path / f"{number}.png", tmp_path / "out" / f"{number}.png"
        path.write_bytes(png.join(stream.getvalue(), [chunk]))
        pixels, tags = read_photograph(path)
        assert np.array_equal(pixels, picture())
        write_photograph(target, pixels, tags)
        assert np.array_equal(read_image(target), picture())
        if chunk[1].endswith(b"broken"):
            assert tags.notes in (["PNG data left out: iCCP"], ["damaged EXIF data left out"])


def chunks_of(path: Path) -> dict[bytes, bytes]:
    return dict(png.split(path.read_bytes()).about)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_colours_of_a_png_are_kept(tmp_path: Path, depth: type[np.uint8]) -> None:
    text = (b"tEXt", b"Title\0rain"), (b"iTXt", b"Author\0\0\0\0\0J\xc3\xbcrgen")
    for number, colours in enumerate(
        ([LINEAR, P3], [HDR, (b"mDCV", bytes(24))], [(b"sRGB", b"\0")])
    ):
        path, target = tmp_path / f"{number}.png", tmp_path / "out" / f"{number}.png"
        write_photograph(path, pixels_of(depth, 3), Tags(chunks=(*colours, *text)))
        pixels, tags = read_photograph(path)
        write_photograph(target, pixels, tags)
        assert tags.notes == []
        assert png.split(target.read_bytes()).about == [*colours, *text]


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("grey", [False, True])
def test_colours_of_a_png_become_a_profile(tmp_path: Path, suffix: str, grey: bool) -> None:
    tags = Tags(chunks=(LINEAR, P3), grey=grey)
    write_photograph(tmp_path / f"a{suffix}", np.full((16, 16, 3), 95, np.uint8), tags)
    assert tags.notes == []
    with Image.open(tmp_path / f"a{suffix}") as file:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(file.info["icc_profile"]))
        shown = ImageCms.profileToProfile(
            file, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    light = 255 * (1.055 * (95 / 255) ** (1 / 2.4) - 0.055)  # the curve of sRGB
    assert np.abs(np.array(shown) - light).max() < 1.5


def test_primaries_of_a_png_become_a_profile(tmp_path: Path) -> None:
    """The red of P3, which sRGB cannot show, becomes its red; a half-way colour by hand values."""
    tags = Tags(chunks=((b"cICP", bytes([12, 13, 0, 1])),))
    write_photograph(tmp_path / "a.tif", np.full((4, 4, 3), (200, 100, 100), np.uint8), tags)
    with Image.open(tmp_path / "a.tif") as file:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(file.info["icc_profile"]))
        shown = ImageCms.profileToProfile(file, profile, ImageCms.createProfile("sRGB"))
    linear = np.where(
        (v := np.array([200, 100, 100]) / 255) > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v
    )
    red, green, blue = linear  # of the standard P3-D65 to sRGB matrix
    expected = [
        1.2249 * red - 0.2247 * green,
        -0.0420 * red + 1.0419 * green,
        -0.0197 * red - 0.0786 * green + 1.0979 * blue,
    ]
    curve = 255 * (1.055 * np.array(expected) ** (1 / 2.4) - 0.055)
    assert np.abs(np.array(shown)[0, 0] - curve).max() < 1.5


def test_colours_that_no_profile_says_are_noted(tmp_path: Path) -> None:
    for name, chunk in (("a.jpg", HDR), ("a.bmp", LINEAR)):
        tags = Tags(chunks=(chunk,))
        write_photograph(tmp_path / name, pixels_of(np.uint8, 3), tags)
        (note,) = tags.notes
        assert f"does not hold {chunk[0].decode()}" in note
    plain = Tags(chunks=((b"sRGB", b"\0"), (b"gAMA", (45455).to_bytes(4, "big"))))
    write_photograph(tmp_path / "b.jpg", pixels_of(np.uint8, 3), plain)
    assert plain.notes == []
    assert read_photograph(tmp_path / "b.jpg")[1].profile is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_xmp_survives_upright(tmp_path: Path, picture: Picture, suffix: str) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg", xmp=XMP)
    pixels, tags = read_photograph(tmp_path / "a.jpg")
    write_photograph(tmp_path / f"b{suffix}", pixels, tags)
    again, read = read_photograph(tmp_path / f"b{suffix}")
    assert read.xmp == UPRIGHT
    assert again.shape == pixels.shape  # Pillow's EXIF data has the orientation of XMP
    assert read.notes == []


def test_what_xmp_points_to_is_left_out_with_it(tmp_path: Path, picture: Picture) -> None:
    for word, note in ((b"hdrgm:Version", "gain map"), (b"GCamera:MotionPhoto", "motion photo")):
        Image.fromarray(picture()).save(tmp_path / "a.jpg", xmp=b'<x %s="1"/>' % word)
        _, tags = read_photograph(tmp_path / "a.jpg")
        assert tags.xmp == b""
        assert len(tags.notes) == 1
        assert note in tags.notes[0]


def test_one_odd_exif_entry_does_not_cost_the_others(tmp_path: Path, picture: Picture) -> None:
    exif = Image.Exif()
    exif[0x013B], exif[0x8825] = "Author", {1: "N", 2: (48.0, 8.0, 30.0)}
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    place = data.index(b"\0\2\0\5\0\0\0\3")  # big-endian: GPSLatitude, three rationals
    odd = data[:place] + b"\0\2\0\2\xff\0\0\3" + data[place + 8 :]  # a text of 4 GB
    (tmp_path / "a.jpg").write_bytes(odd)
    _, tags = read_photograph(tmp_path / "a.jpg")
    assert b"Author" in tags.exif
