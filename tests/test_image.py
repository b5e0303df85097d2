"""Images as arrays and tensors, and lists of them."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.errors import UserError
from utils.image import Pixels, hstack, list_images, to_pixels, to_tensor

Picture = Callable[..., Pixels]


def test_list_images_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        list_images(tmp_path / "missing")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}: ")):
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
