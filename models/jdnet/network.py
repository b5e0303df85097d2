"""JDNet: joint self-attention and scale aggregation for self-calibrated deraining (ACM MM 2020).

Section 3.1 of the paper: Eq. 1 and Fig. 2.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.jdnet.activation import leaky_relu
from models.jdnet.dense_connection import DenseFeatures
from models.jdnet.scale_aggregation import ScaleAggregation
from models.jdnet.self_attention import SelfAttention, image_coordinates, patch_coordinates
from models.jdnet.self_calibration import SelfCalibratedConv


class JointUnit(nn.Module):
    """Self-attention, scale aggregation and self-calibrated convolution (paper, Fig. 2).

    Rows of Table 2: R1 is without self-attention and self-calibration, R2 without self-attention,
    R3 has both.
    """

    def __init__(
        self,
        channels: int,
        scales: int,
        pooling: int,
        footprint: int,
        self_attention: bool,
        self_calibration: bool,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(channels, footprint) if self_attention else None
        self.aggregation = ScaleAggregation(channels, scales)
        self.calibration = SelfCalibratedConv(channels, pooling) if self_calibration else None

    def forward(self, x: Tensor, coordinates: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        if self.attention is not None:
            x = self.attention(x, coordinates)
        x = self.aggregation(x)
        return self.calibration(x) if self.calibration is not None else x


class JDNet(nn.Module):
    """Estimate the rain layer R of a rainy image O and return the background B = O - R (Eq. 1).

    Args:
        units: number of densely connected joint units.
        channels: feature channels C, a multiple of 16.
        scales: number of halvings n in the scale aggregation.
        pooling: pooling window r of the self-calibrated convolution.
        footprint: side of the attention footprint, odd.
        self_attention: False for the ablations R1 and R2.
        self_calibration: False for the ablation R1.
        position: coordinates of the attention's position term: "image" for `image_coordinates`
            (as released), "patch" for `patch_coordinates`.

    Source: paper, sections 3.1 to 3.4. Where paper and released code differ, this follows the code.
    """

    def __init__(
        self,
        units: int = 32,
        channels: int = 32,
        scales: int = 4,
        pooling: int = 4,
        footprint: int = 7,
        self_attention: bool = True,
        self_calibration: bool = True,
        position: Literal["image", "patch"] = "image",
    ) -> None:
        super().__init__()
        self.position = position
        # Reflection padding needs more than footprint // 2 pixels, pooling one full window.
        self.smallest = max(pooling, footprint // 2 + 1)
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.units = nn.ModuleList(
            JointUnit(channels, scales, pooling, footprint, self_attention, self_calibration)
            for _ in range(units)
        )
        self.dense = nn.ModuleList(nn.Conv2d((i + 2) * channels, channels, 1) for i in range(units))
        self.tail = nn.Conv2d(channels, 3, 3, padding=1)

    def stages(self, rainy: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the derained image, the only supervised output."""
        return (self.forward(rainy),)

    def forward(self, rainy: Tensor, window: tuple[int, int, int, int] | None = None) -> Tensor:
        """[B, 3, H, W] -> [B, 3, H, W], RGB in [0, 1]; the output is not clamped.

        Args:
            rainy: images of any size from 1x1 up.
            window: (top, left, full height, full width) if `rainy` is a tile of a larger image:
                the tile then gets the coordinates it has in that image. Ignored if `position` is
                "patch" or the tile is smaller than `smallest`.
        """
        h, w = rainy.shape[2:]
        if min(h, w) < self.smallest:
            pad = [0, max(0, self.smallest - w), 0, max(0, self.smallest - h)]
            return self.forward(F.pad(rainy, pad, mode="replicate"))[:, :, :h, :w]

        coordinates = (
            image_coordinates(rainy, window or (0, 0, h, w))
            if self.position == "image"
            else patch_coordinates(rainy)
        )
        # Every convolution keeps the channels-last layout, and runs a third faster in it.
        x = self.head(rainy.contiguous(memory_format=torch.channels_last))
        x = leaky_relu(x)
        features = DenseFeatures(x, len(self.units) + 1)
        for unit, dense in zip(self.units, self.dense, strict=True):
            features.append(unit(x, coordinates))
            x = leaky_relu(features.fuse(dense))
        rain = leaky_relu(self.tail(x))
        return rainy - rain  # Eq. 1
