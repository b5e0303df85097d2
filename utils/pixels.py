"""Pixels of an image as an array."""

from typing import Any

from numpy.typing import NDArray

Pixels = NDArray[Any]  # [H, W, 3], or [H, W, 4] with alpha; RGB; uint8 or uint16
