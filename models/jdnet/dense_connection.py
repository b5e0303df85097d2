"""Dense connections: a 1x1 convolution over all features so far (JDNet paper, Fig. 2).

Written out, fusion i is conv_i(cat(features[: i + 2])). Thirty-two growing concatenations, and as
many partial gradients of every feature, would be most of the memory and much of the time of a
training step. So features stand side by side from the start, and in the backward so do the
gradients of the fusions: each feature's own is then a single convolution over those.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Narrow buffers leave few zeros, and 64 channels at once are the fastest. In half precision each
# buffer rounds the sum once more: over 32 units pairs lose nothing by it, single ones would.
GROUP = 2


class SideBySide:
    """Tensors [B, C, H, W] in channels-last buffers of `GROUP` tensors, filled one by one.

    Args:
        length: how many there will be.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.buffers: list[Tensor] = []

    def put(self, place: int, x: Tensor) -> None:
        """Store the tensor of this place: the next free one, or one to be overwritten."""
        group = 1 if x.is_meta else GROUP  # what is only counted shall not count the zeros
        channels, (buffer, column) = x.shape[1], divmod(place, group)
        if buffer == len(self.buffers):
            size = min(group, self.length - place) * channels
            # Zeros, because what is not filled yet meets weights of zero.
            empty = x.new_zeros(x.shape[0], *x.shape[2:], size)
            self.buffers.append(empty.permute(0, 3, 1, 2))
        self.buffers[buffer][:, column * channels : (column + 1) * channels] = x

    def convolve(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """F.conv2d(cat(all), weight, bias); the weight may be short, or too long."""
        (first, part), *others = self._parts(weight)
        out = F.conv2d(first, part, bias)
        for buffer, part in others:
            out += F.conv2d(buffer, part)
        return out

    def weight_gradients(self, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of `convolve` with respect to its weight and bias, given that of its result."""
        parts = [
            torch.ops.aten.convolution_backward(
                *(grad, buffer, part, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
                output_mask=[False, True, i == 0],
            )[1:]
            for i, (buffer, part) in enumerate(self._parts(weight))
        ]
        return torch.cat([part for part, _ in parts], dim=1)[:, : weight.shape[1]], parts[0][1]

    def _parts(self, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each buffer that the weight reaches, and its part of that; zero where it ends before."""
        width = self.buffers[0].shape[1]
        parts = list(zip(self.buffers, weight.split(width, dim=1), strict=False))
        buffer, last = parts[-1]
        parts[-1] = (buffer, F.pad(last, [0, 0, 0, 0, 0, buffer.shape[1] - last.shape[1]]))
        return [(buffer, part.contiguous()) for buffer, part in parts]


class DenseFeatures:
    """The features of a dense chain, as far as it has come.

    Args:
        first: [B, C, H, W].
        length: how many features there will be.
    """

    def __init__(self, first: Tensor, length: int) -> None:
        self.chain = _Chain(length)
        self.token = first.new_zeros(length - 1)
        self.append(first)

    def append(self, x: Tensor) -> None:
        """Add one more, [B, C, H, W]."""
        self.token = _Append.apply(x, self.token, self.chain)  # type: ignore[no-untyped-call]

    def fuse(self, layer: nn.Module) -> Tensor:
        """Apply a 1x1 convolution with C channels out to all features so far: [B, C, H, W]."""
        assert isinstance(layer, nn.Conv2d)
        fused: Tensor = _Fuse.apply(  # type: ignore[no-untyped-call]
            layer.weight, layer.bias, self.token, self.chain
        )
        return fused


class _Chain:
    """What forward and backward share. It must not know tokens: they know it, and would leak."""

    def __init__(self, length: int) -> None:
        self.features, self.count = SideBySide(length), 0
        self.gradients = SideBySide(length - 1)
        self.places: dict[int, int] = {}  # in `gradients`, of the fusion of so many features
        self.weights: Tensor | None = None  # of the fusions, see `put_gradient`

    def put_gradient(self, grad: Tensor, weight: Tensor) -> int:
        """Keep a fusion's gradient, [B, C, H, W], and its weight, [C, n * C, 1, 1]; its place."""
        channels, longest = grad.shape[1], self.gradients.length
        count = weight.shape[1] // channels
        # Another backward through a retained graph overwrites what the last one left.
        place = self.places.setdefault(count, len(self.places))
        self.gradients.put(place, grad)
        if self.weights is None:
            # For each feature the weight of a convolution over all gradients.
            self.weights = grad.new_zeros(longest + 1, channels, longest, channels)
        self.weights[:count, :, place] = weight.view(channels, count, channels).permute(1, 2, 0)
        return place


class _Append(torch.autograd.Function):
    """Store a feature and renew the token.

    A fusion takes the newest token. So autograd knows that a feature's backward comes after those
    of all its fusions, and the token's gradient says at which places these left theirs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, chain: _Chain) -> Tensor:
        ctx.chain, ctx.place = chain, chain.count
        chain.features.put(chain.count, x)
        chain.count += 1
        return torch.zeros_like(token)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, used: Tensor) -> tuple[Tensor, Tensor, None]:
        weight = ctx.chain.weights[ctx.place] * used[:, None]
        return ctx.chain.gradients.convolve(weight.flatten(1)[..., None, None]), used, None


class _Fuse(torch.autograd.Function):
    """Convolve all features so far. Its backward leaves their gradients to `_Append`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, token: Tensor, chain: _Chain) -> Tensor:
        weight = weight.to(token.dtype)  # that of the features: lower under autocast
        ctx.save_for_backward(weight, token)
        ctx.chain = chain
        return chain.features.convolve(weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, token = ctx.saved_tensors
        used = torch.zeros_like(token)
        used[ctx.chain.put_gradient(grad, weight)] = 1
        return *ctx.chain.features.weight_gradients(weight, grad), used, None
