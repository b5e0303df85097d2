"""Dense connections: a 1x1 convolution over all features so far (JDNet paper, Fig. 2).

Written out, step i is conv(cat(features)). Thirty-two growing concatenations are most of the memory
of a training step and a good part of the time of an inference, so neither keeps them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class DenseFeatures:
    """The features of a dense chain, as far as it has come.

    Where no gradient is wanted they stand side by side in one channels-last buffer, a prefix of
    which is their concatenation. Else each is kept as it is, and concatenated only for the moments
    of a fusion and of its backward.

    Args:
        first: [B, C, H, W].
        length: how many features there will be.
    """

    def __init__(self, first: Tensor, length: int) -> None:
        self.kept: list[Tensor] = []
        self.buffer: Tensor | None = None
        self.channels = 0
        if not torch.is_grad_enabled():
            b, c, h, w = first.shape
            self.buffer = first.new_empty(b * h * w, length * c)
        self.append(first)

    def append(self, x: Tensor) -> None:
        """Add one more, [B, C, H, W]."""
        if self.buffer is None:
            self.kept.append(x)
        else:
            self.buffer[:, self.channels : self.channels + x.shape[1]] = _rows(x)
        self.channels += x.shape[1]
        self.shape = x.shape

    def fuse(self, layer: nn.Module) -> Tensor:
        """Apply a 1x1 convolution to all features so far: [B, C, H, W]."""
        assert isinstance(layer, nn.Conv2d)
        weight, bias = layer.weight.flatten(1), layer.bias
        if self.buffer is not None:
            rows = F.linear(self.buffer[:, : self.channels], weight, bias)  # no copy
        else:
            rows = _LinearOfConcatenation.apply(  # type: ignore[no-untyped-call]
                weight, bias, *map(_rows, self.kept)
            )
        b, _, h, w = self.shape
        return rows.view(b, h, w, -1).permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B * H * W, C]; a view where the memory is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


class _LinearOfConcatenation(torch.autograd.Function):
    """F.linear(torch.cat(rows, dim=1), weight, bias), saving the rows and not their copy."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, *rows: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *rows)
        return F.linear(torch.cat(rows, dim=1), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        weight, *rows = ctx.saved_tensors
        # Under autocast the forward ran in the precision of `grad`, its inputs may have another.
        grad_weight = grad.T @ torch.cat(rows, dim=1).to(grad.dtype)
        grad_rows = grad @ weight.to(grad.dtype)
        parts = grad_rows.split([part.shape[1] for part in rows], dim=1)
        grads = (g.to(part.dtype) for g, part in zip(parts, rows, strict=True))
        return grad_weight.to(weight.dtype), grad.sum(dim=0).to(weight.dtype), *grads
