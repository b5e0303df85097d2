r"""Pairwise self-attention over a square footprint (JDNet paper, section 3.2; SAN, CVPR 2020).

For a pixel i and every neighbour j in its footprint R(i):

    delta_ij = [phi_i - psi_j, p_i - p_j]                     relation            (Eq. 4)
    alpha_ij = softmax_j( gamma . LeakyReLU(delta_ij) )       adaptive weight     (Eq. 3)
    y_i      = sum over j of alpha_ij * beta_j                aggregation         (Eq. 2)

The position term p, the softmax and the reflected border are in the released code, not in the
paper's equations. The released gamma is two 1x1 convolutions with nothing between them: one
weight per relation channel, once multiplied out. Additive constants vanish in the softmax.

`reference.py` is the text-book form, for the tests and for readers. `shifts.py` runs everywhere;
`native.py` is the same in C++, for float32 on the CPU, and `cuda.py` in Triton, for float32 on the
GPU. These three compute the weights again in the backward instead of keeping them, and stand here
as one registered operator of torch.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from models.jdnet.ops import cuda, native, shifts
from models.jdnet.ops.inputs import Inputs
from models.jdnet.ops.reference import pairwise_attention_reference

IMPLEMENTATIONS: dict[str, ModuleType] = {"shifts": shifts, "native": native, "triton": cuda}
LIMITS = {
    "native": "float32 on the CPU and footprints up to 15",
    "triton": "float32 on CUDA and odd footprints up to 15",
}


def pairwise_attention(
    phi: Tensor,
    psi: Tensor,
    beta: Tensor,
    position: Tensor,
    gamma: Tensor,
    footprint: int,
    implementation: str | None = None,
) -> Tensor:
    """Aggregate `beta` over each pixel's footprint with weights made from differences.

    Args:
        phi: query features, [B, R, H, W].
        psi: key features, [B, R, H, W].
        beta: value features, [B, V, H, W].
        position: position features, the same for every image, [1, P, H, W].
        gamma: one weight per relation channel, [R + P].
        footprint: side of the square footprint, odd; H and W must exceed half of it.
        implementation: `native`, `triton`, `shifts` or `reference`; None takes the environment's
            JDNET_ATTENTION, and `auto` where that is not set: `triton` on CUDA and `native` on the
            CPU where they can be had, else `shifts`.

    Returns:
        [B, V, H, W]; one weight map serves all V channels. Half-precision inputs are computed,
        and returned, in float32.

    Raises:
        ValueError: the implementation is unknown or cannot take these inputs.

    Source: JDNet paper, section 3.2, Eq. 2-4.
    """
    with without_autocast(phi):
        if phi.dtype in (torch.float16, torch.bfloat16):
            phi, psi, beta, position = phi.float(), psi.float(), beta.float(), position.float()
        chosen = choose_implementation(phi, footprint, implementation)
        if chosen == "reference":
            return pairwise_attention_reference(phi, psi, beta, position, gamma, footprint)
        pad = [footprint // 2] * 4
        out: Tensor = _attention(
            phi,
            F.pad(psi, pad, mode="reflect"),
            F.pad(beta, pad, mode="reflect"),
            position,
            F.pad(position, pad, mode="reflect"),
            gamma.to(phi.dtype),
            footprint,
            chosen,
        )
        return out


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Full precision on the device of `x`; on the meta device there is nothing to switch off."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def choose_implementation(phi: Tensor, footprint: int, wanted: str | None = None) -> str:
    """The implementation that runs for these inputs; arguments as in `pairwise_attention`.

    Raises:
        ValueError: the wanted one is unknown or cannot take these inputs.
    """
    wanted = wanted or os.environ.get("JDNET_ATTENTION", "auto")
    names = ("auto", "reference", *IMPLEMENTATIONS)
    if wanted not in names:
        raise ValueError(f"no attention {wanted!r}: JDNET_ATTENTION takes {', '.join(names)}")
    if wanted == "auto":
        fast = "triton" if phi.is_cuda else "native"
        return fast if IMPLEMENTATIONS[fast].is_usable(phi, footprint) else "shifts"
    if wanted in LIMITS and not IMPLEMENTATIONS[wanted].is_usable(phi, footprint):
        got = f"{phi.dtype} on {phi.device.type} and footprint {footprint}"
        raise ValueError(f"the {wanted} attention takes {LIMITS[wanted]}, got {got}")
    return wanted


@torch.library.custom_op("jdnet::pairwise_attention", mutates_args=())
def _attention(
    phi: Tensor,
    psi: Tensor,
    beta: Tensor,
    position: Tensor,
    position_padded: Tensor,
    gamma: Tensor,
    footprint: int,
    implementation: str,
) -> Tensor:
    inputs = Inputs(phi, psi, beta, position, position_padded, gamma)
    out: Tensor = IMPLEMENTATIONS[implementation].forward(inputs, footprint)
    return out


@_attention.register_fake
def _(phi: Tensor, psi: Tensor, beta: Tensor, *_others: Any) -> Tensor:
    return beta.new_empty(phi.shape[0], beta.shape[1], *phi.shape[2:])


@torch.library.custom_op("jdnet::pairwise_attention_backward", mutates_args=())
def _attention_backward(
    grad_out: Tensor,
    phi: Tensor,
    psi: Tensor,
    beta: Tensor,
    position: Tensor,
    position_padded: Tensor,
    gamma: Tensor,
    footprint: int,
    implementation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = Inputs(phi, psi, beta, position, position_padded, gamma)
    grads: Inputs = IMPLEMENTATIONS[implementation].backward(grad_out, inputs, footprint)
    return (*grads,)


@_attention_backward.register_fake
def _(grad_out: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return tuple(map(torch.empty_like, arguments[: len(Inputs._fields)]))


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.footprint, ctx.implementation = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    grads = _attention_backward(grad_out, *ctx.saved_tensors, ctx.footprint, ctx.implementation)
    return (*grads, None, None)


_attention.register_autograd(_backward, setup_context=_save_inputs)


@register_flop_formula(torch.ops.jdnet.pairwise_attention)
def _flops(
    phi: list[int],
    psi: list[int],
    beta: list[int],
    position: list[int],
    position_padded: list[int],
    gamma: list[int],
    footprint: int,
    *_: Any,
    **__: Any,
) -> int:
    """Two for each multiply-add: one a relation channel, one a value channel, at every shift."""
    images, _relations, height, width = phi
    return 2 * images * height * width * footprint**2 * (gamma[0] + beta[1])
