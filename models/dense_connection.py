"""Dense connections: a 1x1 convolution over all features so far (JDNet paper, Fig. 2).

Written out, step i is conv(cat(features)). Thirty-two growing concatenations are most of the memory
of a training step and a good part of the time of an inference, so neither keeps them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

GROUP = 8


class DenseFeatures:
    """The features of a dense chain, as far as it has come.

    Where no gradient is wanted, `GROUP` of them at a time stand side by side in one channels-last
    buffer, made once and filled one by one, and a fusion is a sum over the buffers. Else each is
    kept as it is, and concatenated only for the moments of a fusion and of its backward.

    Args:
        first: [B, C, H, W].
        length: how many features there will be.
    """

    def __init__(self, first: Tensor, length: int) -> None:
        self.length = length
        self.count = 0
        self.kept: list[Tensor] = []
        self.buffers: list[Tensor] = []
        self.grouped = not torch.is_grad_enabled()
        self.append(first)

    def append(self, x: Tensor) -> None:
        """Add one more, [B, C, H, W]."""
        if self.grouped:
            place, channels = self.count % GROUP, x.shape[1]
            if place == 0:
                size = min(GROUP, self.length - self.count) * channels
                # Zeros, because what is not filled yet meets weights of zero.
                zeros = x.new_zeros(x.shape[0], *x.shape[2:], size)
                self.buffers.append(zeros.permute(0, 3, 1, 2))
            self.buffers[-1][:, place * channels : (place + 1) * channels] = x
        else:
            self.kept.append(x)
        self.count += 1

    def fuse(self, layer: nn.Module) -> Tensor:
        """Apply a 1x1 convolution to all features so far: [B, C, H, W]."""
        assert isinstance(layer, nn.Conv2d)
        weight, bias = layer.weight, layer.bias
        if not self.grouped:
            out: Tensor = _ConvOfConcatenation.apply(  # type: ignore[no-untyped-call]
                weight, bias, *self.kept
            )
            return out
        missing = sum(buffer.shape[1] for buffer in self.buffers) - weight.shape[1]
        weights = F.pad(weight, [0, 0, 0, 0, 0, missing]).split(self.buffers[0].shape[1], dim=1)
        fused = F.conv2d(self.buffers[0], weights[0].contiguous(), bias)
        for buffer, part in zip(self.buffers[1:], weights[1:], strict=True):
            fused += F.conv2d(buffer, part.contiguous())
        return fused


class _ConvOfConcatenation(torch.autograd.Function):
    """F.conv2d(torch.cat(parts, dim=1), weight, bias), 1x1, saving the parts and not their copy."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *parts)
        return F.conv2d(torch.cat(parts, dim=1), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        weight, *parts = ctx.saved_tensors
        # Under autocast the forward ran in the precision of `grad`, its inputs may have another.
        together = torch.cat(parts, dim=1).to(grad.dtype)
        grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            grad,
            together,
            weight.to(grad.dtype),
            [weight.shape[0]],
            [1, 1],
            [0, 0],
            [1, 1],
            False,
            [0, 0],
            1,
            [True, True, True],
        )
        grad_parts = grads[0].split([part.shape[1] for part in parts], dim=1)
        return (
            grads[1].to(weight.dtype),
            grads[2].to(weight.dtype),
            *(g.to(part.dtype) for g, part in zip(grad_parts, parts, strict=True)),
        )
