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

GROUP = 8


class SideBySide:
    """Tensors [B, C, H, W] in channels-last buffers of `GROUP` tensors, filled one by one.

    Args:
        length: how many there will be.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.count = 0
        self.buffers: list[Tensor] = []

    def append(self, x: Tensor) -> None:
        """Add one more."""
        group = 1 if x.is_meta else GROUP  # what is only counted shall not count the zeros
        place, channels = self.count % group, x.shape[1]
        if place == 0:
            size = min(group, self.length - self.count) * channels
            # Zeros, because what is not filled yet meets weights of zero.
            buffer = x.new_zeros(x.shape[0], *x.shape[2:], size)
            self.buffers.append(buffer.permute(0, 3, 1, 2))
        self.buffers[-1][:, place * channels : (place + 1) * channels] = x
        self.count += 1

    def convolve(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """F.conv2d(cat(first few), weight, bias), as many as the weight [N, n * C, 1, 1] takes."""
        first, *others = zip(self.buffers, self._cut(weight), strict=False)
        out = F.conv2d(*first, bias)
        for buffer, part in others:
            out += F.conv2d(buffer, part)
        return out

    def weight_gradient(self, weight: Tensor, grad: Tensor) -> Tensor:
        """Gradient of `convolve` with respect to its weight, given that of its result."""
        parts = [
            torch.ops.aten.convolution_backward(
                *(grad, buffer, part, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
                output_mask=[False, True, False],
            )[1]
            for buffer, part in zip(self.buffers, self._cut(weight), strict=False)
        ]
        return torch.cat(parts, dim=1)[:, : weight.shape[1]]

    def _cut(self, weight: Tensor) -> list[Tensor]:
        """One part for each buffer that is wanted, zero for the rest of the last one."""
        width = self.buffers[0].shape[1]
        wanted = self.buffers[: -(-weight.shape[1] // width)]
        rest = sum(buffer.shape[1] for buffer in wanted) - weight.shape[1]
        return [part.contiguous() for part in _pad(weight, rest).split(width, dim=1)]


class DenseFeatures:
    """The features of a dense chain, as far as it has come.

    Args:
        first: [B, C, H, W].
        length: how many features there will be.
    """

    def __init__(self, first: Tensor, length: int) -> None:
        self.chain = _Chain(length)
        self.tickets: list[Tensor] = []
        self.append(first)

    def append(self, x: Tensor) -> None:
        """Add one more, [B, C, H, W]."""
        ticket: Tensor = _Append.apply(x, self.chain)  # type: ignore[no-untyped-call]
        self.tickets.append(ticket)

    def fuse(self, layer: nn.Module) -> Tensor:
        """Apply a 1x1 convolution with C channels out to all features so far: [B, C, H, W]."""
        assert isinstance(layer, nn.Conv2d)
        fused: Tensor = _Fuse.apply(  # type: ignore[no-untyped-call]
            layer.weight, layer.bias, self.chain, *self.tickets
        )
        return fused


class _Chain:
    """What forward and backward share. It must not know tickets: they know it, and would leak."""

    def __init__(self, length: int) -> None:
        self.features = SideBySide(length)
        self.fusions = 0
        self.start_backward()

    def start_backward(self) -> None:
        self.gradients = SideBySide(self.features.length - 1)
        self.weights: dict[int, Tensor] = {}  # of the fusions in `gradients`, in that order


class _Append(torch.autograd.Function):
    """Store a feature and give a ticket for it.

    A fusion takes the tickets of the features that it uses. That is how autograd knows when all of
    a feature's fusions have run backwards; the tickets' gradients say which ones that were.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, chain: _Chain) -> Tensor:
        channels, count = x.shape[1], chain.features.count
        ctx.chain, ctx.columns = chain, slice(count * channels, (count + 1) * channels)
        chain.features.append(x)
        return torch.zeros(chain.features.length - 1, device=x.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, used_by: Tensor) -> tuple[Tensor, None]:
        weights = [
            used_by[fusion].to(weight.dtype) * weight[:, ctx.columns].transpose(0, 1)
            for fusion, weight in ctx.chain.weights.items()
        ]
        return ctx.chain.gradients.convolve(torch.cat(weights, dim=1)), None


class _Fuse(torch.autograd.Function):
    """Convolve all features so far. Its backward leaves their gradients to `_Append`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, chain: _Chain, *tickets: Tensor) -> Tensor:
        ctx.save_for_backward(weight, bias)
        ctx.chain, ctx.fusion, ctx.tickets = chain, chain.fusions, len(tickets)
        chain.fusions += 1
        return chain.features.convolve(weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias = ctx.saved_tensors
        chain: _Chain = ctx.chain
        if ctx.fusion in chain.weights:
            chain.start_backward()  # a second backward through a graph that was retained
        # Under autocast the forward ran in the precision of `grad`.
        used = weight.to(grad.dtype)
        chain.gradients.append(grad)
        chain.weights[ctx.fusion] = _pad(
            used, chain.features.length * grad.shape[1] - used.shape[1]
        )
        ticket = torch.zeros(chain.features.length - 1, device=grad.device)
        ticket[ctx.fusion] = 1
        return (
            chain.features.weight_gradient(used, grad).to(weight.dtype),
            grad.sum(dim=(0, 2, 3), dtype=bias.dtype),
            None,
            *[ticket] * ctx.tickets,
        )


def _pad(weight: Tensor, channels: int) -> Tensor:
    """Zeros for so many more input channels of a 1x1 convolution."""
    return F.pad(weight, [0, 0, 0, 0, 0, channels])
