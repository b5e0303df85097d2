"""Pairwise self-attention module (JDNet paper, section 3.2, Eq. 2-4 and Fig. 3; SAN, CVPR 2020).

This module computes the inputs of the attention; `ops.pairwise_attention` computes Eq. 2-4.
"""

import torch
from torch import Tensor, nn

from models.jdnet.activation import leaky_relu
from models.jdnet.ops import pairwise_attention, without_autocast
from models.jdnet.pointwise import pointwise


class SelfAttention(nn.Module):
    """Aggregate each pixel's footprint with weights computed from pairwise differences.

    Released code: BatchNorm and LeakyReLU precede the attention, and the residual adds the input
    from before them.

    Args:
        channels: C, a multiple of 16; the relation has C/16 channels, the values have C/4.
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
        # Two consecutive linear maps, as released: they train differently from their product.
        # The bias of gamma2 has no effect, because the softmax cancels constants; it is kept
        # because released checkpoints contain it. Frozen, because distributed training expects a
        # gradient of every other parameter.
        self.gamma1 = nn.Conv2d(relations + 2, relations, 1, bias=False)
        self.gamma2 = nn.Conv2d(relations, 1, 1)
        self.gamma2.get_parameter("bias").requires_grad_(False)
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
            # In bfloat16, neighbouring coordinates of a large image would be equal.
            position = _project(coordinates, self.position)
            gamma = self.gamma2.weight.flatten(1) @ self.gamma1.weight.flatten(1)
        projected = _project_jointly(features, self.phi, self.psi, self.beta)
        # Eq. 2-4
        y = pairwise_attention(projected, position, gamma.flatten(), self.footprint)
        # Channels-last before the LeakyReLU, so that its backward sees a single layout.
        y = self.norm_out(y.to(self.norm_out.weight.dtype))
        y = leaky_relu(y.contiguous(memory_format=torch.channels_last))
        return pointwise(y, self.expand.weight, self.expand.bias).add_(x)


def _project(coordinates: Tensor, layer: nn.Conv2d) -> Tensor:
    """1x1 convolution of [1, 2, H, W] as a matrix product, which is faster for two channels."""
    assert layer.bias is not None
    pixels = coordinates.flatten(2)[0]
    return torch.addmm(layer.bias[:, None], layer.weight.flatten(1), pixels).view_as(coordinates)


def _project_jointly(x: Tensor, *layers: nn.Conv2d) -> Tensor:
    """Several 1x1 convolutions of x in one pass; the result is channels-first, at least float32."""
    together = pointwise(
        x,
        torch.cat([layer.weight for layer in layers]),
        torch.cat([layer.bias for layer in layers if layer.bias is not None]),
    )
    dtype = torch.promote_types(x.dtype, torch.float32)
    return together.to(dtype, memory_format=torch.contiguous_format)


def image_coordinates(x: Tensor, window: tuple[int, int, int, int]) -> Tensor:
    """Column and row of every pixel, from -1 to 1 over the whole image, as released.

    Neighbours are 2 / (W - 1) apart, so a network trained on small patches gets a weaker position
    signal on a large image.

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
    """Column and row of every pixel, spaced as in a training patch.

    The attention uses only differences of coordinates, so its position signal is the same for
    every image size and in every tile. Equals `image_coordinates` on a 64x64 patch, the paper's.

    Args:
        x: [B, C, H, W], for its size, dtype and device.
        patch: side of the training patch, pixels; the spacing is 2 / (patch - 1).

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
