"""Deraining images of any size, with and without tiles."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models import JDNet
from utils import inference
from utils.inference import derain


class Shift(nn.Module):
    """A network whose output encodes the position of each pixel in the whole image."""

    def forward(self, rainy: Tensor, window: tuple[int, int, int, int]) -> Tensor:
        top, left, height, width = window
        h, w = rainy.shape[2:]
        rows = torch.arange(top, top + h).view(1, 1, h, 1) / height
        columns = torch.arange(left, left + w).view(1, 1, 1, w) / width
        return rainy + rows + columns


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 300))
def test_tiles_cover_the_image_and_get_their_window(h: int, w: int, tile: int) -> None:
    image = torch.rand(3, h, w)
    expected = Shift()(image.unsqueeze(0), (0, 0, h, w)).squeeze(0)
    torch.testing.assert_close(derain(Shift(), image, tile), expected)


def test_tiled_jdnet_is_close_to_the_untiled_one() -> None:
    torch.manual_seed(0)
    network = JDNet(units=1, channels=16, scales=2, self_attention=False).eval()
    image = torch.rand(3, 160, 336)
    whole, tiled = derain(network, image), derain(network, image, tile=144)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("length", "tile"), [(129, 128), (500, 144), (4000, 512), (700, 688)])
def test_tiles_start_on_the_coarsest_grid_and_overlap(length: int, tile: int) -> None:
    spans = inference._spans(length, tile)
    assert (spans[0][0], spans[-1][1]) == (0, length)
    assert all(start % 16 == 0 for start, _ in spans)
    assert all(tile <= stop - start < tile + 16 for start, stop in spans)
    assert all(b[0] <= a[1] - 64 for a, b in pairwise(spans))


def test_large_images_are_tiled_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "MAX_UNTILED", 100)
    sizes = []

    class Spy(Shift):
        def forward(self, rainy: Tensor, window: Any) -> Tensor:
            sizes.append(rainy.shape[2:])
            return super().forward(rainy, window)

    derain(Spy(), torch.rand(3, 20, 1200))
    assert {tuple(s) for s in sizes} == {(20, 512)}


def test_tiles_shrink_until_they_fit() -> None:
    class Hungry(Shift):
        def forward(self, rainy: Tensor, window: Any) -> Tensor:
            if rainy.shape[2] * rainy.shape[3] > 150 * 150:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(rainy, window)

    image = torch.rand(3, 300, 300)
    expected = Shift()(image.unsqueeze(0), (0, 0, 300, 300)).squeeze(0)
    torch.testing.assert_close(derain(Hungry(), image), expected)


def test_other_runtime_errors_are_raised() -> None:
    class Broken(nn.Module):
        def forward(self, rainy: Tensor, window: Any) -> Tensor:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        derain(Broken(), torch.rand(3, 8, 8))


def test_bfloat16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    network = JDNet(units=1, channels=16).eval()
    image = torch.rand(3, 40, 50)
    fast = derain(network, image, precision=torch.bfloat16)
    assert fast.dtype == torch.float32
    exact = derain(network, image)
    assert 1e-5 < (fast - exact).abs().max() < 0.01
