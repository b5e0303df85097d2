"""1x1 convolutions.

On one thread of a CPU, PyTorch computes a 1x1 convolution of fewer than 16 images in channels-first
code, with copies. oneDNN is faster in the channels-last layout of JDNet. A dilation makes PyTorch
choose oneDNN; it changes nothing else, because the filter has a single tap. oneDNN takes as long
for the gradient of the bias as for that of the weight, so a sum replaces it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.conv2d with filters of one pixel: [B, C, H, W] -> [B, D, H, W].

    Args:
        x: features, channels-last.
        weight: [D, C, 1, 1].
        bias: [D].
    """
    if _is_slow(x):
        return _Pointwise.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return F.conv2d(x, weight, bias)


def _is_slow(x: Tensor) -> bool:
    """Whether PyTorch may take its channels-first code; compiled code keeps F.conv2d."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.get_num_threads() == 1
    )


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, dilation=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [1, 1], [0, 0], [2, 2], False, [0, 0], 1, [*wanted[:2], False]
        )
        return grad_x, grad_weight, grad.sum(dim=(0, 2, 3)) if wanted[2] else None
