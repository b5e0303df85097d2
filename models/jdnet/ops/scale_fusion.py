"""The final sum of the scale aggregation, fused into one operator (JDNet paper, 3.3, Eq. 9).

    out = LeakyReLU( first + sum over k of Up(other_k) ) + residual

Separate operations make a dozen passes over full-size tensors, which cost more than the
convolutions before them. The operator makes one pass: in C++ on the CPU and in Triton on the GPU,
for float32 and bfloat16. PyTorch computes the other cases.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.jdnet.activation import SLOPE, leaky_relu
from models.jdnet.ops import cuda
from models.jdnet.ops.library import load

NATIVE = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
Implementation = Literal["native", "triton", "torch"]


def fuse_scales(
    first: Tensor,
    others: Sequence[Tensor],
    residual: Tensor,
    implementation: Implementation | None = None,
) -> Tensor:
    """LeakyReLU(first + sum of the up-sampled others) + residual.

    Args:
        first: [B, C, H, W].
        others: [B, C, h, w] each, of any size; resized to HxW by nearest-neighbour interpolation.
        residual: [B, C, H, W].
        implementation: None uses the fastest that supports these inputs.

    Returns:
        [B, C, H, W], channels-last.

    Source: JDNet paper, section 3.3, Eq. 9; LeakyReLU and residual: released code.
    """
    return _fuse_scales(first, others, residual, torch.is_grad_enabled(), implementation)[0]


def _choose(first: Tensor, others: Sequence[Tensor], residual: Tensor) -> Implementation:
    alike = all(x.dtype == first.dtype and x.device == first.device for x in (*others, residual))
    if not alike or first.dtype not in NATIVE:
        return "torch"
    if first.is_cuda:
        return "triton" if cuda.works_on(first.device) else "torch"
    library = load() if first.device.type == "cpu" else None
    fits = library is not None and first.shape[1] % library.scale_fusion_lanes() == 0
    return "native" if fits else "torch"


# The implementation is chosen inside the operators, so that torch.compile does not trace it.
@torch.library.custom_op("jdnet::fuse_scales", mutates_args=())
def _fuse_scales(
    first: Tensor,
    others: Sequence[Tensor],
    residual: Tensor,
    for_backward: bool,
    implementation: str | None,
) -> tuple[Tensor, Tensor]:
    """Also return where the LeakyReLU input is positive, [B, C, H, W]; empty if not needed."""
    out, positive = _outputs(first, for_backward)
    match implementation or _choose(first, others, residual):
        case "native":
            _call_native("forward", [first, residual, out, positive], others, first)
        case "triton":
            _launch_forward(first, others, residual, out, positive)
        case _:
            total = first.clone()
            for other in others:
                total += F.interpolate(other, first.shape[2:])  # Eq. 9
            if for_backward:
                positive.copy_(total > 0)
            torch.add(leaky_relu(total), residual, out=out)
    return out, positive


@_fuse_scales.register_fake
def _(
    first: Tensor, others: Sequence[Tensor], residual: Tensor, for_backward: bool, *_: Any
) -> tuple[Tensor, Tensor]:
    return _outputs(first, for_backward)


def _outputs(first: Tensor, for_backward: bool) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(first, memory_format=torch.channels_last)
    positive = torch.empty_like(out, dtype=torch.uint8) if for_backward else out.new_empty(0)
    return out, positive


@torch.library.custom_op("jdnet::fuse_scales_backward", mutates_args=())
def _fuse_scales_backward(
    grad: Tensor, positive: Tensor, sizes: Sequence[int], implementation: str | None
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of `first` and of the others; `sizes` are the heights and widths of the others."""
    grad_first, grad_others = _gradients(grad, sizes)
    match implementation or _choose(grad, [], grad):
        case "native":
            _call_native("backward", [grad, positive, grad_first], grad_others, grad)
        case "triton":
            _launch_backward(grad, positive, grad_first, grad_others)
        case _:
            grad_first.copy_(torch.where(positive > 0, grad, SLOPE * grad))
            for other in grad_others:
                shapes = grad.shape[2:], other.shape
                full = grad_first.to(other.dtype)
                other.copy_(torch.ops.aten.upsample_nearest2d_backward(full, *shapes))
    return grad_first, grad_others


@_fuse_scales_backward.register_fake
def _(grad: Tensor, positive: Tensor, sizes: Sequence[int], *_: Any) -> tuple[Tensor, list[Tensor]]:
    return _gradients(grad, sizes)


def _gradients(grad: Tensor, sizes: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    # At least float32: a pixel of the coarsest scale accumulates hundreds of gradients.
    b, c = grad.shape[:2]
    dtype = torch.promote_types(grad.dtype, torch.float32)
    others = [
        grad.new_zeros(b, h, w, c, dtype=dtype).permute(0, 3, 1, 2)
        for h, w in zip(sizes[::2], sizes[1::2], strict=True)
    ]
    return torch.empty_like(grad, memory_format=torch.channels_last), others


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, others, _, _, ctx.implementation = inputs
    ctx.sizes = [size for other in others for size in other.shape[2:]]
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    arguments = grad, *ctx.saved_tensors, ctx.sizes, ctx.implementation
    grad_first, grad_others = _fuse_scales_backward(*arguments)
    return grad_first, [other.to(grad.dtype) for other in grad_others], grad, None, None


_fuse_scales.register_autograd(_backward, setup_context=_save)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


# --- C++ ---------------------------------------------------------------------------------------


def _call_native(function: str, full: list[Tensor], scales: Sequence[Tensor], like: Tensor) -> None:
    """Call a compiled function with full-size tensors, scales, and the sizes of both."""
    full, scales = ([_channels_last(x) for x in group] for group in (full, scales))
    b, c, h, w = like.shape
    sizes = [size for x in scales for size in x.shape[2:]]
    getattr(load(), f"scale_fusion_{function}_{NATIVE[like.dtype]}")(
        *(ctypes.c_void_p(x.data_ptr()) for x in full),
        (ctypes.c_void_p * len(scales))(*(x.data_ptr() for x in scales)),
        (ctypes.c_int64 * len(sizes))(*sizes),
        *(ctypes.c_int64(size) for size in (len(scales), b, h, w, c)),
    )


# --- Triton ------------------------------------------------------------------------------------


def _launch_forward(
    first: Tensor, others: Sequence[Tensor], residual: Tensor, out: Tensor, positive: Tensor
) -> None:
    from models.jdnet.ops import kernels

    b, c, h, w = first.shape
    first, residual = _channels_last(first), _channels_last(residual)
    others = tuple(_channels_last(other) for other in others)
    sizes = (other.shape[2:] for other in others)
    scales = tuple((float(rows), float(columns), rows / h, columns / w) for rows, columns in sizes)
    depth = cuda.power_of_two(c)
    block = max(1, 2048 // depth)  # pixels
    cuda.launch(
        kernels.fuse_scales,
        (b * h, -(-w // block)),
        *(first, residual, out, positive, others, scales, h, w),
        channels=c,
        depth=depth,
        for_backward=positive.numel() > 0,
        slope=SLOPE,
        block=block,
    )


def _launch_backward(
    grad: Tensor, positive: Tensor, grad_first: Tensor, grad_others: Sequence[Tensor]
) -> None:
    from models.jdnet.ops import kernels

    b, c, h, w = grad.shape
    grad, size, block = _channels_last(grad), grad.numel(), 1024
    arguments = (grad, positive, grad_first, size)
    blocks = (-(-size // block),)
    cuda.launch(kernels.fuse_scales_backward, blocks, *arguments, slope=SLOPE, block=block)
    for other in grad_others:
        rows, columns = other.shape[2:]
        taps = -(-h // rows) + 2, -(-w // columns) + 2
        cuda.launch(
            kernels.fuse_scales_backward_of_scale,
            (b * rows, columns),
            *(grad_first, other, rows, columns, rows / h, columns / w, h, w, *taps),
            channels=c,
            depth=cuda.power_of_two(c),
            block=32,
        )
