"""Reading and writing photographs of all supported kinds, with their tags."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from utils.errors import UserError
from utils.image import Pixels, read_image, write_image
from utils.photo.decode import read_photograph
from utils.photo.encode import write_photograph

Picture = Callable[..., Pixels]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_round_trip_keeps_rgb(tmp_path: Path, picture: Picture, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, picture())
    assert np.array_equal(read_image(path), picture())
    assert np.array_equal(np.array(Image.open(path)), picture())
    assert [f.name for f in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_round_trip_keeps_16_bits(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (9, 7, 3), dtype=np.uint16)
    write_image(tmp_path / f"deep{suffix}", pixels)
    assert np.array_equal(read_image(tmp_path / f"deep{suffix}"), pixels)


def test_round_trip_keeps_alpha(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    write_image(tmp_path / "a.png", pixels)
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_planes_stored_separately(
    tmp_path: Path, channels: int, compression: str | None
) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (9, 7, channels), dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels.transpose(2, 0, 1),
        photometric="rgb",
        planarconfig="separate",
        compression=compression,
        extrasamples=["unassalpha"] * (channels - 3),
    )
    assert np.array_equal(read_image(tmp_path / "a.tif"), pixels)


def test_16_bit_tiff_in_which_zero_is_white(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 2**16, (9, 7), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", 65535 - grey, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "a.tif"), np.dstack([grey] * 3))


def test_16_bit_premultiplied_alpha_is_divided_out(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), 20000, np.uint16)
    pixels[..., 3] = 32768
    pixels[0, 0] = 0
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
    read = read_image(tmp_path / "a.tif")
    assert read[1, 1].tolist() == [39999, 39999, 39999, 32768]
    assert not read[0, 0].any()


def test_grey_palette_and_16_bit_grey_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey).convert("RGB").quantize(64).save(tmp_path / "palette.png")
    cv2.imwrite(str(tmp_path / "deep.png"), grey.astype(np.uint16) * 257)
    for name in ("grey", "palette"):
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), np.dstack([grey] * 3))
    deep = read_image(tmp_path / "deep.png")
    assert deep.dtype == np.uint16
    assert np.array_equal(deep, np.dstack([grey.astype(np.uint16) * 257] * 3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    """To 8-bit and 16-bit images, which different libraries decode."""
    upright = np.zeros((6, 4, 3), dtype=np.uint8)
    upright[:3, :2] = 255  # the upper left quarter is white
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    stored = np.ascontiguousarray(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(stored).save(path, exif=exif)
    assert np.array_equal(read_image(path), upright)
    Image.fromarray(stored[..., 0].astype(np.uint16) * 257).save(path, exif=exif)
    assert np.array_equal(read_image(path), upright.astype(np.uint16) * 257)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_of_a_camera(orientation: int = 6) -> bytes:
    """EXIF data in the byte order of many cameras, with date, place and a thumbnail."""
    exif = Image.Exif()
    exif.endian = ">"
    exif[0x010F], exif[0x0112], exif[0x0100] = "Maker", orientation, 9999
    exif[0x8769] = {0x9003: "2026:11:21 12:00:00"}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 30.0)}
    data = exif.tobytes()
    header, table = data[:6], data[6:]
    (entries,) = struct.unpack_from(">H", table, 8)
    thumbnail = struct.pack(">HHHLLHHLLL", 2, 0x0201, 4, 1, len(table) + 30, 0x0202, 4, 1, 4, 0)
    changed = bytearray(table + thumbnail + b"\xff\xd8\xff\xd9")
    struct.pack_into(">L", changed, 10 + 12 * entries, len(table))
    return header + bytes(changed)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".png", np.uint8),
        (".png", np.uint16),
        (".tif", np.uint8),
        (".tif", np.uint16),
        (".jpg", np.uint8),
        (".webp", np.uint8),
    ],
)
def test_profile_exif_and_resolution_survive(
    tmp_path: Path, picture: Picture, suffix: str, kind: type[np.uint8]
) -> None:
    """From a camera's JPEG into every format, and from every format into the same."""
    camera = tmp_path / "camera.jpg"
    Image.fromarray(picture()).save(
        camera, exif=exif_of_a_camera(), icc_profile=PROFILE, dpi=(300, 240)
    )
    with Image.open(camera) as file:
        assert file.getexif().get_ifd(ExifTags.IFD.IFD1)  # the thumbnail
    pixels, tags = read_photograph(camera)
    for path in (tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"):
        write_photograph(path, pixels.astype(kind), tags)
        pixels, tags = read_photograph(path)
        assert pixels.dtype == kind
        with Image.open(path) as file:
            assert file.size == (24, 32)
            assert file.info["icc_profile"] == PROFILE
            exif = file.getexif()
            assert (exif[0x010F], exif[0x0112]) == ("Maker", 1)
            assert exif.get(0x0100) != 9999  # a size in pixels, which may be another now
            assert exif.get_ifd(0x8769)[0x9003] == "2026:11:21 12:00:00"
            assert exif.get_ifd(0x8825)[2] == (48, 8, 30)
            assert not exif.get_ifd(ExifTags.IFD.IFD1)
            assert (round(exif[0x011A]), round(exif[0x011B])) == (300, 240)
            if suffix != ".webp":
                dpi = file.info["dpi"]
                assert (round(dpi[0]), round(dpi[1])) in ((300, 240), (300, 300))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_text_in_exif_survives_byte_for_byte(tmp_path: Path, picture: Picture, suffix: str) -> None:
    utf8, latin = "© 2024 Jürgen".encode(), "José".encode("latin-1")
    exif = Image.Exif()
    exif[0x8298], exif[0x013B], exif[0x8769] = utf8, latin, {0xA434: "Objectif é".encode()}
    Image.fromarray(picture()).save(tmp_path / "camera.jpg", exif=exif)
    pixels, tags = read_photograph(tmp_path / "camera.jpg")
    write_photograph(tmp_path / f"a{suffix}", pixels, tags)
    data = (tmp_path / f"a{suffix}").read_bytes()
    for text in (utf8, latin, "Objectif é".encode()):
        assert text in data


def test_damaged_exif_is_left_out(tmp_path: Path, picture: Picture) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif_of_a_camera()[:40])
    pixels, tags = read_photograph(tmp_path / "a.jpg")
    assert pixels.shape[2] == 3
    write_photograph(tmp_path / "b.jpg", pixels, tags)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        (".png", "1"),
        (".png", "L"),
        (".png", "LA"),
        (".png", "I;16"),
        (".tif", "L"),
        (".tif", "LA"),
        (".tif", "I;16"),
        (".jpg", "L"),
        (".bmp", "L"),
    ],
)
def test_grey_stays_grey(tmp_path: Path, suffix: str, mode: str) -> None:
    """The network may return channels that differ: their mean is written."""
    path = tmp_path / f"a{suffix}"
    Image.new(mode, (16, 8), (80, 90) if mode == "LA" else 1).save(path)
    pixels, tags = read_photograph(path)
    assert tags.grey
    assert pixels.shape == (8, 16, 4 if mode == "LA" else 3)
    pixels[..., :3] = [100, 101, 105]
    write_photograph(path, pixels, tags)
    with Image.open(path) as file:
        assert file.mode == ("L" if mode == "1" else mode)
        assert np.array(file).reshape(8, 16, -1)[..., 0].tolist() == [[102] * 16] * 8
    if mode == "LA":
        assert (read_image(path)[..., 3] == 90).all()


def test_formats_without_alpha_get_the_image_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 4), np.uint16)
    pixels[:8, :, 3] = 65535
    for suffix in (".jpg", ".bmp"):
        write_image(tmp_path / f"a{suffix}", pixels)
        written = read_image(tmp_path / f"a{suffix}")
        assert written.dtype == np.uint8
        assert (written[:8] == 0).all()
        assert (written[8:] == 255).all()


def test_limits_of_a_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.webp: .*16383"):
        write_image(tmp_path / "a.webp", np.zeros((1, 16384, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def save_float_colour(path: Path) -> None:
    cv2.imwrite(str(path), np.full((8, 8, 3), 0.5, dtype=np.float32))


def save_animation(path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (0, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "save", "reason"),
    [
        ("float.tif", save_float_colour, "16 bits"),
        ("moving.gif", save_animation, "2 images"),
        ("moving.webp", save_animation, "2 images"),
        ("empty.png", Path.touch, "not an image"),
    ],
)
def test_refused_images(
    tmp_path: Path, name: str, save: Callable[[Path], None], reason: str
) -> None:
    save(tmp_path / name)
    with pytest.raises(UserError, match=rf"{re.escape(name)}: .*{reason}"):
        read_image(tmp_path / name)


def test_float_grey_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.full((8, 8), 0.5, dtype=np.float32))
    with pytest.raises(UserError, match=r"a\.tif: .*16 bits"):
        read_image(tmp_path / "a.tif")


def test_unreadable_files(tmp_path: Path, picture: Picture) -> None:
    with pytest.raises(UserError, match=r"no file .*missing\.png"):
        read_image(tmp_path / "missing.png")
    for suffix in (".png", ".jpg"):
        path = tmp_path / f"cut{suffix}"
        write_image(path, picture(64, 64))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(UserError, match=rf"cut\{suffix}: truncated"):
            read_image(path)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"text\.png"):
        read_image(tmp_path / "text.png")
