"""Kinds of photograph that are read but not written, and what a folder leaves out."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

import show
from utils.errors import UserError
from utils.image import Pixels, read_image, write_image
from utils.photo import kinds
from utils.photo.decode import read_photograph
from utils.photo.encode import write_photograph
from utils.photo.outputs import left_out, plan_outputs

Picture = Callable[..., Pixels]


def smooth(height: int = 48, width: int = 64) -> Pixels:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3 + 20, y * 4 + 20, x + y + 20], -1).astype(np.uint8)


def near(pixels: Pixels, expected: Pixels, levels: float) -> bool:
    peak = np.iinfo(pixels.dtype).max
    return bool(np.abs(pixels / peak * 255 - expected).mean() < levels)


def upright_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    return exif


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".mpo", ".jp2", ".tga", ".ppm", ".gif"])
def test_less_common_suffixes(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(smooth())
    kind = {".jp2": "JPEG2000", ".tga": "TGA", ".ppm": "PPM", ".gif": "GIF"}.get(suffix, "JPEG")
    image.save(tmp_path / f"a{suffix}", kind)
    assert list(plan_outputs([tmp_path], tmp_path / "out")) == [tmp_path / f"a{suffix}"]
    assert near(read_image(tmp_path / f"a{suffix}"), smooth(), 8 if suffix == ".gif" else 4)


@pytest.mark.parametrize("suffix", [".avif", ".heic", ".jxl"])
def test_new_kinds_keep_profile_and_exif(tmp_path: Path, suffix: str) -> None:
    """Turned by EXIF, as telephones do; except JPEG XL, in which EXIF turns nothing."""
    if suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if suffix == ".jxl":
        pytest.importorskip("pillow_jxl")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    stored = smooth() if suffix == ".jxl" else np.ascontiguousarray(np.rot90(smooth()))
    path = tmp_path / f"a{suffix}"
    Image.fromarray(stored).save(path, icc_profile=profile, exif=upright_exif().tobytes())
    pixels, tags = read_photograph(path)
    assert pixels.dtype == np.uint8
    assert near(pixels, smooth(), 4)
    assert tags.profile
    assert b"Maker" in tags.exif
    assert tags.notes == []


@pytest.mark.parametrize("name", ["deep.avif", "deep.jp2", "deep.ppm", "deep.heic"])
def test_more_than_8_bits_are_kept(tmp_path: Path, name: str) -> None:
    fine = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    deep = np.dstack([fine] * 3)
    if name.endswith("heic"):
        heif = pytest.importorskip("pillow_heif")
        heif.from_bytes("RGB;16", (64, 48), deep.tobytes()).save(tmp_path / name, quality=-1)
    elif name.endswith("avif"):
        options = [cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 100]
        cv2.imwrite(str(tmp_path / name), deep >> 6, options)
    else:
        cv2.imwrite(str(tmp_path / name), deep)
    pixels = read_image(tmp_path / name)
    assert pixels.dtype == np.uint16
    assert len(np.unique(pixels)) > 500
    assert np.abs(pixels.astype(int) - deep).mean() < 200


@pytest.mark.parametrize("name", ["a.pgm", "a.jxl"])
def test_grey_of_16_bits(tmp_path: Path, name: str) -> None:
    if name == "a.jxl":
        pytest.importorskip("pillow_jxl")
    fine = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    if name == "a.pgm":
        cv2.imwrite(str(tmp_path / name), fine)
    else:
        Image.fromarray(fine).save(tmp_path / name, lossless=True)
    pixels, tags = read_photograph(tmp_path / name)
    assert np.array_equal(pixels, np.dstack([fine] * 3))
    assert tags.grey


def test_jpeg_xl_of_more_than_8_bits_is_noted(tmp_path: Path) -> None:
    """The package gives 8 bits only. The picture: 8x8 grey pixels in 16 bits, by FFmpeg."""
    pytest.importorskip("pillow_jxl")
    (tmp_path / "a.jxl").write_bytes(
        bytes.fromhex(
            "ff0a41f093090012880200cc005de5120000152aa38c1bbc9cebf9f24387c5b48deb0c6d"
            "b56d6149a2c8383649277048126b30c6051886010066ae338ca69204"
        )
    )
    pixels, tags = read_photograph(tmp_path / "a.jxl")
    assert pixels.shape == (8, 8, 3)
    assert tags.notes == ["16 bits reduced to 8"]


def write_dng(path: Path, pixels: Pixels, orientation: int = 1) -> None:
    """A raw file: one of red, green, green, blue per pixel, linear, of a camera that sees sRGB."""
    linear = (pixels / 255) ** 2.2 * 60_000
    mosaic = np.empty(pixels.shape[:2], np.uint16)
    for y, x, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[y::2, x::2] = linear[y::2, x::2, channel]
    matrix = (3.2405, -1.5371, -0.4985, -0.9693, 1.8760, 0.0416, 0.0556, -0.2040, 1.0572)
    tags = [
        (271, 2, 0, "Maker", True),
        (272, 2, 0, "Model", True),
        (274, 3, 1, orientation, True),
        (33421, 3, 2, (2, 2), True),  # size and
        (33422, 1, 4, bytes([0, 1, 1, 2]), True),  # colours of the mosaic
        (50706, 1, 4, bytes([1, 4, 0, 0]), True),  # version of DNG
        (50708, 2, 0, "Maker Model", True),
        (50717, 3, 1, 60_000, True),  # white
        (50721, 10, 9, tuple(n for v in matrix for n in (round(1e4 * v), 10_000)), True),
        (50728, 5, 3, (1, 1) * 3, True),  # white balance
        (50778, 3, 1, 21, True),  # daylight D65
    ]
    tifffile.imwrite(path, mosaic, photometric=32803, extratags=tags, metadata=None)


@pytest.mark.parametrize("orientation", [1, 6])
def test_camera_raw_is_developed(tmp_path: Path, orientation: int) -> None:
    pytest.importorskip("rawpy")
    write_dng(tmp_path / "a.DNG", smooth(), orientation)
    pixels, tags = read_photograph(tmp_path / "a.DNG")
    assert pixels.dtype == np.uint16
    expected = smooth() if orientation == 1 else np.rot90(smooth(), -1)
    for channel in range(3):  # brightened, so not equal
        assert np.corrcoef(pixels[..., channel].flat, expected[..., channel].flat)[0, 1] > 0.98
    assert b"Maker" in tags.exif
    write_photograph(tmp_path / "a.png", pixels, tags)
    again, tags = read_photograph(tmp_path / "a.png")
    assert np.array_equal(again, pixels)
    assert b"Maker" in tags.exif
    (tmp_path / "b.nef").write_bytes(b"no raw file")
    with pytest.raises(UserError, match=r"cannot read .*b\.nef"):
        read_photograph(tmp_path / "b.nef")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("a.heic", "pillow_heif", "pillow-heif"),
        ("telephone.jpg", "pillow_heif", "pillow-heif"),
        ("a.jxl", "pillow_jxl", "pillow-jxl-plugin"),
        ("a.cr2", "rawpy", "rawpy"),
    ],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # makes its import fail
    head = b"\xff\x0a" if name == "a.jxl" else b"\0\0\0\x18ftypheic"
    (tmp_path / name).write_bytes(head + bytes(100))
    with pytest.raises(UserError, match=rf"{name}: .* pip install {package}$"):
        read_image(tmp_path / name)


def test_cmyk_and_lab_become_srgb(tmp_path: Path) -> None:
    """By the profile of the file; here one that turns the colours in a known way."""
    Image.fromarray(smooth()).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    pixels, tags = read_photograph(tmp_path / "a.jpg")
    assert near(pixels, smooth(), 4)
    assert tags.notes == ["CMYK converted to sRGB, without a colour profile"]
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(smooth()), srgb, lab, outputMode="LAB")
    assert image is not None
    image.save(tmp_path / "a.tif")
    pixels, tags = read_photograph(tmp_path / "a.tif")
    assert near(pixels, smooth(), 4)
    assert tags.notes == ["LAB converted to sRGB"]
    Image.fromarray(smooth()).convert("CMYK").save(tmp_path / "b.jpg", icc_profile=b"no profile")
    pixels, tags = read_photograph(tmp_path / "b.jpg")
    assert near(pixels, smooth(), 8)
    assert tags.profile is None
    assert tags.notes == ["CMYK converted to sRGB, not by its profile"]


def test_a_second_picture_inside_is_counted(tmp_path: Path) -> None:
    small = Image.fromarray(smooth(24, 32))
    Image.fromarray(smooth()).save(tmp_path / "a.mpo", save_all=True, append_images=[small])
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(smooth(), photometric="rgb")
        file.write(smooth(24, 32), photometric="rgb", subfiletype=1)
    for name, note in (("a.mpo", "further pictures"), ("a.tif", "previews")):
        pixels, tags = read_photograph(tmp_path / name)
        assert near(pixels, smooth(), 4)
        assert tags.notes == [f"{note} left out: 1"]


def test_same_format_of_a_kind_that_is_not_written(tmp_path: Path) -> None:
    for suffix in kinds.SUFFIXES:
        (tmp_path / f"x{suffix[1:]}{suffix}").touch()
    targets = plan_outputs([tmp_path], tmp_path / "out", "same")
    assert len(targets) == len(kinds.SUFFIXES)
    for source, target in targets.items():
        new = kinds.same_suffix(source.suffix)
        assert target.suffix == new
        write_image(target, smooth(4, 4))  # a suffix that is written
    assert kinds.same_suffix(".JPG") == ".JPG"
    assert kinds.same_suffix(".mpo") == ".jpg"
    assert kinds.same_suffix(".CR2") == ".png"


def test_what_a_folder_leaves_out_is_counted(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.xyz", "c.TXT", "d", ".hidden", "below/e.png", "out/old.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    first, second = left_out([tmp_path], tmp_path / "out")
    assert "3 files (.txt, .xyz, no suffix)" in first
    assert "1 folders (below); add --recursive" in second
    (tmp_path / "link").symlink_to(tmp_path / "below")
    first, second = left_out([tmp_path], tmp_path / "out", recursive=True)
    assert "3 files" in first
    assert "1 folders (link); name links" in second
    assert left_out([tmp_path / "below", tmp_path / "a.jpg"], tmp_path / "out") == []


def test_patterns_that_python_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no pattern .*\*\*a"):
        plan_outputs([tmp_path / "**a"], tmp_path / "out")


@pytest.mark.slow
def test_show_says_once_what_same_cannot_write(
    tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.fromarray(picture()).save(tmp_path / "in" / f"{name}.ppm")
    gain_map = b'<x hdrgm:Version="1.0"/>'
    Image.fromarray(picture()).save(tmp_path / "in" / "c.jpg", xmp=gain_map, comment=b"hello")
    command = [str(tmp_path / "in"), "--format", "same", "--output", str(tmp_path / "out")]
    show.main([*command, "--kind", "light"])
    printed = capsys.readouterr().out
    assert printed.count("not written with --format same: .ppm; ") == 1
    assert printed.count("note:") == 1
    assert "c.jpg: gain map (for HDR displays) left out\n" in printed
