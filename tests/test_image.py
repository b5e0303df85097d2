"""Reading and writing images of all supported kinds."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from utils.errors import UserError
from utils.image import (
    Pixels,
    hstack,
    list_images,
    read_image,
    to_pixels,
    to_tensor,
    write_image,
)

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
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    """Pillow rotates 8-bit images and our code 16-bit images; both must agree."""
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
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), upright)
    grey = Image.fromarray(stored[..., 0].astype(np.uint16) * 257)
    grey.save(tmp_path / "deep.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "deep.png"), upright.astype(np.uint16) * 257)


def test_float_images_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.full((8, 8), 0.5, dtype=np.float32))
    with pytest.raises(UserError, match="expected 8 or 16 bits per channel"):
        read_image(tmp_path / "a.tif")


def test_unreadable_files(tmp_path: Path, picture: Picture) -> None:
    with pytest.raises(UserError, match="no file"):
        read_image(tmp_path / "missing.png")
    for suffix in (".png", ".jpg"):
        path = tmp_path / f"cut{suffix}"
        write_image(path, picture(64, 64))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(
            UserError, match=f"cannot read .*cut{suffix}: truncated or not an image"
        ):
            read_image(path)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"cannot read .*text\.png"):
        read_image(tmp_path / "text.png")


def test_list_images_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        list_images(tmp_path / "missing")
    with pytest.raises(UserError, match="nothing to read in"):
        list_images(tmp_path)


def test_to_pixels_clamps_and_rounds() -> None:
    tensor = torch.tensor([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.7]).view(1, 1, 6)
    pixels = to_pixels(tensor.expand(3, 1, 6))
    assert pixels[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]
    everything = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(to_pixels(to_tensor(everything)), everything)
    deep = np.arange(0, 2**16, 7, dtype=np.uint16)[:9000].reshape(50, 60, 3)
    assert np.array_equal(to_pixels(to_tensor(deep), np.uint16), deep)


def test_hstack(picture: Picture) -> None:
    a, b = picture(seed=1), picture(seed=2)
    row = hstack(a, b, gap=3)
    assert row.shape == (24, 67, 3)
    assert np.array_equal(row[:, :32], a)
    assert np.array_equal(row[:, 35:], b)
    assert (row[:, 32:35] == 255).all()
