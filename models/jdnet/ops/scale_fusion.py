"""The final sum of the scale aggregation, fused into one operator (JDNet paper, 3.3, Eq. 9).

    out = LeakyReLU( first + sum over k of Up(other_k) ) + residual

Separate operations make a dozen passes over full-size tensors. C++ code makes one, in float32 and
bfloat16 on the CPU (docs/performance.md). PyTorch computes the other cases and the gradients.
"""

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.jdnet.activation import SLOPE, leaky_relu
from models.jdnet.ops.library import load
from models.jdnet.ops.self_check import Result, passes

NATIVE = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def fuse_scales(first: Tensor, others: Sequence[Tensor], residual: Tensor) -> Tensor:
    """LeakyReLU(first + sum of the up-sampled others) + residual.

    Args:
        first: [B, C, H, W].
        others: [B, C, h, w] each, of any size; resized to HxW by nearest-neighbour interpolation.
        residual: [B, C, H, W].

    Returns:
        [B, C, H, W], channels-last.

    Source: JDNet paper, section 3.3, Eq. 9; LeakyReLU and residual: released code.
    """
    return _fuse_scales(first, others, residual, torch.is_grad_enabled())[0]


# The implementation is chosen inside the operator, so that torch.compile does not trace it.
@torch.library.custom_op("jdnet::fuse_scales", mutates_args=())
def _fuse_scales(
    first: Tensor, others: Sequence[Tensor], residual: Tensor, for_backward: bool
) -> tuple[Tensor, Tensor]:
    """Also return where the LeakyReLU input is positive, [B, C, H, W]; empty if not needed."""
    out, positive = _outputs(first, for_backward)
    fuse = _call_native if _is_native(first, *others, residual) else _call_pytorch
    fuse(first, others, residual, out, positive)
    return out, positive


@_fuse_scales.register_fake
def _(
    first: Tensor, others: Sequence[Tensor], residual: Tensor, for_backward: bool
) -> tuple[Tensor, Tensor]:
    return _outputs(first, for_backward)


def _outputs(first: Tensor, for_backward: bool) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(first, memory_format=torch.channels_last)
    positive = torch.empty_like(out, dtype=torch.bool) if for_backward else out.new_empty(0)
    return out, positive


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.shapes = [other.shape for other in inputs[1]]
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    (positive,) = ctx.saved_tensors
    # Of its argument, this needs only where it is positive. A third of the time of torch.where.
    grad_first = torch.ops.aten.leaky_relu_backward(grad, positive.to(grad.dtype), SLOPE, True)
    up = torch.ops.aten.upsample_nearest2d_backward  # sums bfloat16 in float32
    grad_others = [up(grad_first, grad.shape[2:], shape) for shape in ctx.shapes]
    return grad_first, grad_others, grad, None


_fuse_scales.register_autograd(_backward, setup_context=_save)


def _call_pytorch(
    first: Tensor, others: Sequence[Tensor], residual: Tensor, out: Tensor, positive: Tensor
) -> None:
    total = first.clone()
    for other in others:
        total += F.interpolate(other, first.shape[2:])  # Eq. 9
    if positive.numel():
        positive.copy_(total > 0)
    torch.add(leaky_relu(total), residual, out=out)


def _is_native(*tensors: Tensor) -> bool:
    """Whether the C++ code supports these inputs; compiles it if necessary."""
    dtype, channels = tensors[0].dtype, tensors[0].shape[1]
    if dtype not in NATIVE or any(x.dtype != dtype or x.device.type != "cpu" for x in tensors):
        return False
    library = load()
    if library is None or channels % library.scale_fusion_lanes():
        return False
    return passes("C++ scale fusion", tensors[0].device, _compare)


def _compare() -> Iterator[Result]:
    """Results of the C++ code and of PyTorch for the self-check; the mask decides the gradients."""
    generator = torch.Generator().manual_seed(0)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        first, *others, residual = (
            torch.randn(2, 32, *size, generator=generator, dtype=torch.float64, device="cpu").to(
                dtype, memory_format=torch.channels_last
            )
            for size in ((9, 7), (5, 4), (3, 2), (9, 7))
        )
        ours, exact = _outputs(first, True), _outputs(first.double(), True)
        _call_native(first, others, residual, *ours)
        wide = [other.double() for other in others]
        _call_pytorch(first.double(), wide, residual.double(), *exact)
        yield Result(f"the output in {dtype}", ours[0], exact[0], tolerance)
        yield Result(f"the mask in {dtype}", ours[1], exact[1].double(), 0)


def _call_native(
    first: Tensor, others: Sequence[Tensor], residual: Tensor, out: Tensor, positive: Tensor
) -> None:
    first, residual, *others = (
        x.contiguous(memory_format=torch.channels_last) for x in (first, residual, *others)
    )
    b, c, h, w = first.shape
    sizes = [size for other in others for size in other.shape[2:]]
    getattr(load(), f"scale_fusion_{NATIVE[first.dtype]}")(
        *(ctypes.c_void_p(x.data_ptr()) for x in (first, residual, out, positive)),
        (ctypes.c_void_p * len(others))(*(x.data_ptr() for x in others)),
        (ctypes.c_int64 * len(sizes))(*sizes),
        *(ctypes.c_int64(size) for size in (len(others), b, h, w, c)),
    )
