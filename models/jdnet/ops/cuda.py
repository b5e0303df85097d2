"""Pairwise attention (Eq. 2-4) on the GPU in Triton, float32 only; the kernels are in `kernels.py`.

Triton is installed with PyTorch for CUDA and compiles a kernel on first use. TRITON_INTERPRET=1
runs the same kernels on the CPU, very slowly: for tests.
"""

import os
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

from models.jdnet.activation import SLOPE
from models.jdnet.ops.inputs import Inputs

BLOCK = 128  # positions per program: one for each thread of Triton's four warps
MAX_FOOTPRINT = 15  # MAX_K of the C++ code


def is_usable(phi: Tensor, footprint: int) -> bool:
    """Whether the kernels support these inputs; the first call on a device compiles one."""
    is_interpreted = phi.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if not (phi.is_cuda or is_interpreted) or phi.dtype != torch.float32:
        return False
    return footprint % 2 == 1 and footprint <= MAX_FOOTPRINT and works_on(phi.device)


@cache
def works_on(device: torch.device) -> bool:
    """Whether Triton and the C compiler it needs work here; if not, says so once on stderr."""
    try:
        one = torch.ones(1, 1, 1, 1, dtype=torch.float32, device=device)
        return forward(Inputs(one, one, one, one, one, one.new_ones(2)), 1).item() == 1
    except Exception as error:  # of Triton, of a compiler, of a driver
        first = (str(error).strip() or repr(error)).splitlines()[0]
        print(f"note: slower PyTorch operators are used (triton: {first})", file=sys.stderr)
        return False


def forward(inputs: Inputs, footprint: int) -> Tensor:
    """Same as `shifts.forward`, for inputs that pass `is_usable`."""
    from models.jdnet.ops import kernels

    inputs = Inputs(*(x.contiguous() for x in inputs))
    b, _, h, w = inputs.phi.shape
    out = inputs.beta.new_empty(b, inputs.beta.shape[1], h, w)
    _launch(kernels.forward, h * w, [*inputs, out], inputs, footprint)
    return out


def backward(grad_out: Tensor, inputs: Inputs, footprint: int) -> Inputs:
    """Same as `shifts.backward`, for inputs that pass `is_usable`. Deterministic."""
    from models.jdnet.ops import kernels

    inputs = Inputs(*(x.contiguous() for x in inputs))
    phi, psi, beta, position, position_padded, gamma = inputs
    b, _, h, w = phi.shape
    grads = Inputs(
        torch.empty_like(phi),
        torch.empty_like(psi),
        torch.empty_like(beta),
        # One copy per image (gamma: per program), summed below: no two programs write to the same
        # address.
        position.new_empty(b, *position.shape[1:]),
        position_padded.new_empty(b, *position_padded.shape[1:]),
        gamma.new_empty(b * -(-h * w // BLOCK), *gamma.shape),
    )
    statistics = phi.new_empty(b, 3, h, w, dtype=torch.float32)
    given = [grad_out.contiguous(), *inputs, statistics]
    ours = [grads.phi, grads.position, grads.gamma]
    _launch(kernels.backward_of_pixels, h * w, [*given, *ours], inputs, footprint)
    ours = [grads.psi, grads.beta, grads.position_padded]
    padded_plane = psi.shape[2] * psi.shape[3]
    _launch(kernels.backward_of_neighbours, padded_plane, [*given, *ours], inputs, footprint)
    return grads._replace(
        position=grads.position.sum(dim=0, keepdim=True),
        position_padded=grads.position_padded.sum(dim=0, keepdim=True),
        gamma=grads.gamma.sum(dim=0),
    )


def _launch(kernel: Any, plane: int, tensors: list[Tensor], inputs: Inputs, footprint: int) -> None:
    """Launch a kernel on contiguous tensors, over the `plane` positions of every image."""
    images, relations, height, width = inputs.phi.shape
    positions, values = inputs.position.shape[1], inputs.beta.shape[1]
    with torch.cuda.device_of(inputs.phi):
        kernel[-(-plane // BLOCK), images](
            *tensors,
            height,
            width,
            relations=relations,
            positions=positions,
            values=values,
            channels=_power_of_two(relations + positions),
            depth=_power_of_two(values),
            footprint=footprint,
            slope=SLOPE,
            block=BLOCK,
            enable_fp_fusion=True,  # fused multiply-add; Triton 3.10 no longer defaults to it
        )


def _power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()
