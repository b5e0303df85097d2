"""JDNet: joint self-attention and scale aggregation for self-calibrated deraining (ACM MM 2020).

Section 3.1 of the paper: Eq. 1 and Fig. 2.
"""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.networks import JDNetConfig
from models.jdnet.activation import leaky_relu
from models.jdnet.dense_connection import DenseFeatures
from models.jdnet.scale_aggregation import ScaleAggregation
from models.jdnet.self_attention import SelfAttention, image_coordinates, patch_coordinates
from models.jdnet.self_calibration import SelfCalibratedConv
from models.network import Network, Window


class JointUnit(nn.Module):
    """Self-attention, scale aggregation and self-calibrated convolution (paper, Fig. 2).

    Rows of Table 2: R1 is without self-attention and self-calibration, R2 without self-attention,
    R3 has both.
    """

    def __init__(self, config: JDNetConfig) -> None:
        super().__init__()
        c, n = config.channels, config.scales
        self.attention = SelfAttention(c, config.footprint) if config.self_attention else None
        self.aggregation = ScaleAggregation(c, n)
        self.calibration = (
            SelfCalibratedConv(c, config.pooling) if config.self_calibration else None
        )

    def forward(self, x: Tensor, coordinates: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        if self.attention is not None:
            x = self.attention(x, coordinates)
        x = self.aggregation(x)
        return self.calibration(x) if self.calibration is not None else x


class JDNet(Network):
    """Estimate the rain layer R of a rainy image O and return the background B = O - R (Eq. 1).

    Args:
        config: units, channels C, scales n, pooling r and the rest; default: those of the paper.

    Source: paper, sections 3.1 to 3.4. Where paper and released code differ, this follows the code.
    """

    takes_window = True

    def __init__(self, config: JDNetConfig | None = None) -> None:
        config = config or JDNetConfig()
        super().__init__(config)
        c = config.channels
        self.position = config.position
        self.stride = math.lcm(2**config.scales, config.pooling)
        # Reflection padding needs more than footprint // 2 pixels, pooling one full window.
        self.smallest = max(config.pooling, config.footprint // 2 + 1)
        # The features of all units, and at most 12 more. Measured on the CPU with 32 channels: 1325
        # bytes with 2 units, 2193 with 8, 3704 with 16, 5698 with 32 (estimates: 1920 to 5760).
        self.bytes_per_pixel = 4 * c * (config.units + 1 + 12)
        self.head = nn.Conv2d(3, c, 3, padding=1)
        self.units = nn.ModuleList(JointUnit(config) for _ in range(config.units))
        self.dense = nn.ModuleList(nn.Conv2d((i + 2) * c, c, 1) for i in range(config.units))
        self.tail = nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, rainy: Tensor, window: Window | None = None) -> Tensor:
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

    def place(self, device: torch.device | str) -> Self:
        """Move the network to a device.

        On a GPU the filters become channels-last, like the features. cuDNN would otherwise copy
        every filter to this layout in every call. On the CPU this gains nothing.
        """
        if torch.device(device).type != "cpu":
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.to(device)
