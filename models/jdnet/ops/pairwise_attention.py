r"""Pairwise self-attention over a square footprint (JDNet paper, section 3.2; SAN, CVPR 2020).

For a pixel i and every neighbour j in its footprint R(i):

    delta_ij = [phi_i - psi_j, p_i - p_j]                     relation            (Eq. 4)
    alpha_ij = softmax_j( gamma . LeakyReLU(delta_ij) )       adaptive weight     (Eq. 3)
    y_i      = sum over j of alpha_ij * beta_j                aggregation         (Eq. 2)

The position term p, the softmax and the reflected border come from the released code; the paper's
equations do not have them. The released gamma is two consecutive 1x1 convolutions, equivalent to
one weight per relation channel. The softmax cancels additive constants.

Implementations:

    reference.py    textbook form, for tests and readers
    shifts.py       plain PyTorch, any device and dtype
    native.py       C++, float32 on the CPU
    cuda.py         Triton, float32 on the GPU

All but the first recompute the weights in the backward instead of saving them. They are registered
as one torch operator, `jdnet::pairwise_attention`.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from models.jdnet.ops import cuda, native, shifts
from models.jdnet.ops.inputs import Inputs

IMPLEMENTATIONS: dict[str, ModuleType] = {"shifts": shifts, "native": native, "triton": cuda}
LIMITS = {
    "native": "float32 on the CPU and footprints up to 15",
    "triton": "float32 on CUDA and odd footprints up to 15",
}


def pairwise_attention(
    features: Tensor,
    position: Tensor,
    gamma: Tensor,
    footprint: int,
    implementation: str | None = None,
) -> Tensor:
    """Aggregate beta over each pixel's footprint with weights computed from differences.

    Args:
        features: queries phi and keys psi of R channels each and values beta of V channels,
            [B, 2R + V, H, W]. Together, because one convolution computes all three.
        position: position features, shared by all images, [1, P, H, W].
        gamma: one weight per relation channel, [R + P].
        footprint: side of the square footprint, odd; H and W must exceed footprint // 2.
        implementation: `auto`, `native`, `triton` or `shifts`. None reads the environment variable
            JDNET_ATTENTION, by default `auto`: `triton` on CUDA and `native` on the CPU if usable,
            else `shifts`.

    Returns:
        [B, V, H, W]; all V channels share one weight map. Half-precision inputs are converted to
        float32; the result is float32 then. Deterministic.

    Raises:
        ValueError: the implementation is unknown or does not support these inputs, or the images
            are too small.

    Source: JDNet paper, section 3.2, Eq. 2-4.
    """
    h, w = features.shape[2:]
    if min(h, w) <= footprint // 2:
        raise ValueError(f"{w}x{h} pixels are too few to reflect for a footprint of {footprint}")
    with without_autocast(features):
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        position, gamma = position.to(features.dtype), gamma.to(features.dtype)
        return _attention(features, position, gamma, footprint, implementation)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Disable autocast on the device of `x`; the meta device and exported programs have none."""
    if x.is_meta or torch.compiler.is_exporting():
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def choose_implementation(x: Tensor, footprint: int, wanted: str | None = None) -> str:
    """The implementation for inputs like x; other arguments as in `pairwise_attention`.

    Raises:
        ValueError: the wanted one is unknown or does not support these inputs.
    """
    wanted = wanted or os.environ.get("JDNET_ATTENTION", "auto")
    names = ("auto", *IMPLEMENTATIONS)
    if wanted not in names:
        raise ValueError(
            f"unknown attention {wanted!r}: JDNET_ATTENTION must be one of {', '.join(names)}"
        )
    if wanted == "auto":
        fast = "triton" if x.is_cuda else "native"
        return fast if IMPLEMENTATIONS[fast].is_usable(x, footprint) else "shifts"
    if wanted in LIMITS and not IMPLEMENTATIONS[wanted].is_usable(x, footprint):
        got = f"{x.dtype} on {x.device.type} and footprint {footprint}"
        raise ValueError(f"the {wanted} attention supports {LIMITS[wanted]}, got {got}")
    return wanted


# The implementation is chosen inside the operators, so that torch.compile does not trace it.
@torch.library.custom_op("jdnet::pairwise_attention", mutates_args=())
def _attention(
    features: Tensor, position: Tensor, gamma: Tensor, footprint: int, implementation: str | None
) -> Tensor:
    chosen = IMPLEMENTATIONS[choose_implementation(features, footprint, implementation)]
    return chosen.forward(Inputs(features, position, gamma), footprint)


@_attention.register_fake
def _(features: Tensor, position: Tensor, gamma: Tensor, *_: Any) -> Tensor:
    values = Inputs(features, position, gamma).sizes[2]
    return features.new_empty(features.shape[0], values, *features.shape[2:])


@torch.library.custom_op("jdnet::pairwise_attention_backward", mutates_args=())
def _attention_backward(
    grad_out: Tensor,
    features: Tensor,
    position: Tensor,
    gamma: Tensor,
    footprint: int,
    implementation: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    chosen = IMPLEMENTATIONS[choose_implementation(features, footprint, implementation)]
    grads: Inputs = chosen.backward(grad_out, Inputs(features, position, gamma), footprint)
    return (*grads,)


@_attention_backward.register_fake
def _(grad_out: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in arguments[: len(Inputs._fields)])


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.footprint, ctx.implementation = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    grads = _attention_backward(grad_out, *ctx.saved_tensors, ctx.footprint, ctx.implementation)
    return (*grads, None, None)


_attention.register_autograd(_backward, setup_context=_save_inputs)


@register_flop_formula(torch.ops.jdnet.pairwise_attention)
def _flops(
    features: list[int], position: list[int], gamma: list[int], footprint: int, *_: Any, **__: Any
) -> int:
    """Two per multiply-add: one multiply-add per relation and value channel, at every shift."""
    images, channels, height, width = features
    values = channels - 2 * (gamma[0] - position[1])
    return 2 * images * height * width * footprint**2 * (gamma[0] + values)
