"""The final sum of the scale aggregation, fused into one operator (JDNet paper, 3.3, Eq. 9).

    out = LeakyReLU( first + sum over k of Up(other_k) ) + residual

Separate operations make a dozen passes over full-size tensors, which cost more than the
convolutions before them. The operator makes one pass. It is in C++ for float32 and bfloat16 on the
CPU, and in PyTorch elsewhere.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.jdnet.activation import leaky_relu
from models.jdnet.ops.library import load

NATIVE = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def fuse_scales(first: Tensor, others: Sequence[Tensor], residual: Tensor) -> Tensor:
    """LeakyReLU(first + sum of the up-sampled others) + residual.

    Args:
        first: [B, C, H, W].
        others: [B, C, h, w] each, of any size; resized to HxW by nearest-neighbour interpolation.
        residual: [B, C, H, W].

    Returns:
        [B, C, H, W]; `first` may be overwritten.

    Source: JDNet paper, section 3.3, Eq. 9; LeakyReLU and residual: released code.
    """
    if _is_native(first, others, residual):
        out: Tensor = _fuse_scales(first, others, residual, torch.is_grad_enabled())[0]
        return out
    for other in others:
        first += F.interpolate(other, first.shape[2:])  # Eq. 9
    return leaky_relu(first) + residual


def _is_native(first: Tensor, others: Sequence[Tensor], residual: Tensor) -> bool:
    tensors = (first, *others, residual)
    if first.dtype not in NATIVE or any(
        x.device.type != "cpu" or x.dtype != first.dtype for x in tensors
    ):
        return False
    library = load()
    return library is not None and first.shape[1] % library.scale_fusion_lanes() == 0


@torch.library.custom_op("jdnet::fuse_scales", mutates_args=())
def _fuse_scales(
    first: Tensor, others: Sequence[Tensor], residual: Tensor, for_backward: bool
) -> tuple[Tensor, Tensor]:
    """Also return where the LeakyReLU input is positive, [B, C, H, W]; empty if not needed."""
    out, positive = _outputs(first, for_backward)
    _call("forward", [first, residual, out, positive], others, first)
    return out, positive


@_fuse_scales.register_fake
def _(
    first: Tensor, others: Sequence[Tensor], residual: Tensor, for_backward: bool
) -> tuple[Tensor, Tensor]:
    return _outputs(first, for_backward)


def _outputs(first: Tensor, for_backward: bool) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(first, memory_format=torch.channels_last)
    positive = torch.empty_like(out, dtype=torch.uint8) if for_backward else out.new_empty(0)
    return out, positive


@torch.library.custom_op("jdnet::fuse_scales_backward", mutates_args=())
def _fuse_scales_backward(
    grad: Tensor, positive: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of `first` and of the others; `sizes` are the heights and widths of the others."""
    grad_first, grad_others = _gradients(grad, sizes)
    _call("backward", [grad, positive, grad_first], grad_others, grad)
    return grad_first, grad_others


@_fuse_scales_backward.register_fake
def _(grad: Tensor, positive: Tensor, sizes: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    return _gradients(grad, sizes)


def _gradients(grad: Tensor, sizes: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    # Always float32: a pixel of the coarsest scale accumulates hundreds of gradients.
    b, c = grad.shape[:2]
    others = [
        torch.zeros(b, h, w, c, device=grad.device).permute(0, 3, 1, 2)
        for h, w in zip(sizes[::2], sizes[1::2], strict=True)
    ]
    return torch.empty_like(grad, memory_format=torch.channels_last), others


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.sizes = [size for other in inputs[1] for size in other.shape[2:]]
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    grad_first, grad_others = _fuse_scales_backward(grad, *ctx.saved_tensors, ctx.sizes)
    return grad_first, [other.to(grad.dtype) for other in grad_others], grad, None


_fuse_scales.register_autograd(_backward, setup_context=_save)


def _call(function: str, full: list[Tensor], scales: Sequence[Tensor], like: Tensor) -> None:
    """Call a compiled function with full-size tensors, scales, and the sizes of both."""
    full, scales = (
        [x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in group]
        for group in (full, scales)
    )
    b, c, h, w = like.shape
    sizes = [size for x in scales for size in x.shape[2:]]
    getattr(load(), f"scale_fusion_{function}_{NATIVE[like.dtype]}")(
        *(ctypes.c_void_p(x.data_ptr()) for x in full),
        (ctypes.c_void_p * len(scales))(*(x.data_ptr() for x in scales)),
        (ctypes.c_int64 * len(sizes))(*sizes),
        *(ctypes.c_int64(size) for size in (len(scales), b, h, w, c)),
    )
