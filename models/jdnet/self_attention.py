"""Pairwise self-attention module (JDNet paper, section 3.2 and Fig. 3; SAN, CVPR 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.jdnet.activation import leaky_relu
from models.jdnet.ops import pairwise_attention, without_autocast


class SelfAttention(nn.Module):
    """Mix each pixel with its footprint, the weights made from pairwise differences.

    Released code: BatchNorm and LeakyReLU come first, and the residual is the raw input.

    Args:
        channels: C, a multiple of 16; the relation works on C/16 channels, the values on C/4.
        footprint: side of the square footprint R(i), odd.
    """

    def __init__(self, channels: int = 32, footprint: int = 7) -> None:
        super().__init__()
        relations, values = channels // 16, channels // 4
        self.footprint = footprint
        self.norm_in = nn.BatchNorm2d(channels)
        self.phi = nn.Conv2d(channels, relations, 1)
        self.psi = nn.Conv2d(channels, relations, 1)
        self.beta = nn.Conv2d(channels, values, 1)
        self.position = nn.Conv2d(2, 2, 1)
        # Two linear maps in a row, as released: they train differently from their product.
        # Constants vanish in the softmax, so the last bias never acts; it is kept because
        # released checkpoints carry it.
        self.gamma1 = nn.Conv2d(relations + 2, relations, 1, bias=False)
        self.gamma2 = nn.Conv2d(relations, 1, 1)
        self.norm_out = nn.BatchNorm2d(values)
        self.expand = nn.Conv2d(values, channels, 1)

    def forward(self, x: Tensor, coordinates: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W].

        Args:
            x: features, [B, C, H, W].
            coordinates: column and row of every pixel, [1, 2, H, W]; see `image_coordinates`.
        """
        features = leaky_relu(self.norm_in(x))
        with without_autocast(x):
            # Neighbours' coordinates differ by less than bfloat16 can tell apart.
            position = _project(coordinates, self.position)
            gamma = self.gamma2.weight.flatten(1) @ self.gamma1.weight.flatten(1)
        phi, psi, beta = _side_by_side(features, self.phi, self.psi, self.beta)
        y = pairwise_attention(phi, psi, beta, position, gamma.flatten(), self.footprint)
        # In this order LeakyReLU's backward meets one layout only.
        y = leaky_relu(self.norm_out(y).contiguous(memory_format=torch.channels_last))
        out: Tensor = self.expand(y).add_(x)
        return out


def _project(coordinates: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 1x1 convolution of [1, 2, H, W] as a product: for two channels that is faster."""
    assert layer.bias is not None
    pixels = coordinates.flatten(2)[0]
    return torch.addmm(layer.bias[:, None], layer.weight.flatten(1), pixels).view_as(coordinates)


def _side_by_side(x: Tensor, *layers: nn.Conv2d) -> tuple[Tensor, ...]:
    """Each 1x1 convolution of x by reading x once; planes one after another, in float32 or more."""
    together = F.conv2d(
        x,
        torch.cat([layer.weight for layer in layers]),
        torch.cat([layer.bias for layer in layers if layer.bias is not None]),
    )
    # The attention reads planes. To convert all channels at once is faster than a few at a time.
    planes = together.to(
        torch.promote_types(x.dtype, torch.float32), memory_format=torch.contiguous_format
    )
    parts: tuple[Tensor, ...] = planes.split([layer.out_channels for layer in layers], dim=1)
    return parts


def image_coordinates(x: Tensor, window: tuple[int, int, int, int]) -> Tensor:
    """Column and row of every pixel, from -1 to 1 over the whole image, as released.

    A network trained on small patches meets a weaker signal on a large image: neighbours lie
    2 / (W - 1) apart.

    Args:
        x: [B, C, H, W], for its size, dtype and device.
        window: (top, left, full height, full width) of x in the whole image.

    Returns:
        [1, 2, H, W], channel 0 the column, channel 1 the row.
    """
    top, left, full_height, full_width = window
    h, w = x.shape[2:]
    rows, columns = (
        torch.linspace(-1, 1, length, dtype=x.dtype, device=x.device)
        for length in (full_height, full_width)
    )
    return _grid(rows[top : top + h], columns[left : left + w])


def patch_coordinates(x: Tensor, patch: int = 64) -> Tensor:
    """Column and row of every pixel, neighbours as far apart as in a training patch.

    So the signal is the same on every size and in every tile: only differences of coordinates
    enter the attention. Equal to `image_coordinates` on a patch of 64x64, the paper's.

    Args:
        x: [B, C, H, W], for its size, dtype and device.
        patch: side of the patch whose scale is taken.

    Returns:
        [1, 2, H, W], channel 0 the column, channel 1 the row.
    """
    rows, columns = (
        torch.arange(length, dtype=x.dtype, device=x.device) * (2 / (patch - 1)) - 1
        for length in x.shape[2:]
    )
    return _grid(rows, columns)


def _grid(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy")).unsqueeze(0)
