"""What training and inference know of every network."""

from typing import Self

import torch
from torch import Tensor, nn

from config.networks import NetworkConfig

Window = tuple[int, int, int, int]
"""Place of a tile in its image: top, left, height and width of the whole image."""


class Network(nn.Module):
    """Base class of the networks: rainy images to derained images.

    A network overrides `forward`, or `stages` if its paper supervises several outputs.

    Args:
        config: the arguments of the network.

    Attributes:
        stride: pixels per pixel of its coarsest features; tiles start at multiples of it.
        bytes_per_pixel: estimated memory of a forward pass in float32.
        takes_window: `forward` also takes the `Window` of a tile.
    """

    stride: int = 1
    bytes_per_pixel: int = 8500  # the sibling networks need 1073 to 8211
    takes_window: bool = False

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    def stages(self, rainy: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> every output that the paper supervises, the final one last."""
        return (self.forward(rainy),)

    def forward(self, rainy: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 3, H, W], RGB in [0, 1]; the output is not clamped.

        Args:
            rainy: images of any size from 1x1 up.
        """
        return self.stages(rainy)[-1]

    def place(self, device: torch.device | str) -> Self:
        """Move the network to a device, before or after loading its weights."""
        return self.to(device)
