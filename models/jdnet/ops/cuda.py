"""Pairwise attention (Eq. 2-4) on the GPU in Triton, float32 only; the kernels are in `kernels.py`.

Triton is installed with PyTorch for CUDA and compiles a kernel on first use. TRITON_INTERPRET=1
runs the same kernels on the CPU, very slowly: for tests.
"""

import os
from typing import Any

import torch
from torch import Tensor

from models.jdnet.activation import SLOPE
from models.jdnet.ops.inputs import Inputs
from models.jdnet.ops.self_check import passes
from models.jdnet.ops.shifts import compare

BLOCK = 128  # positions per program: one for each thread of Triton's four warps
MAX_FOOTPRINT = 15  # MAX_K of the C++ code


def is_usable(x: Tensor, footprint: int) -> bool:
    """Whether the kernels support inputs like x; the first call on a device compiles one."""
    is_interpreted = x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if not (x.is_cuda or is_interpreted) or x.dtype != torch.float32:
        return False
    return footprint % 2 == 1 and footprint <= MAX_FOOTPRINT and works_on(x.device)


def works_on(device: torch.device) -> bool:
    """Whether Triton works here and its kernels compute the right results; if not, says so once."""
    return passes("triton", device, lambda: compare(forward, backward, device))


def forward(inputs: Inputs, footprint: int) -> Tensor:
    """Same as `shifts.forward`, for inputs that pass `is_usable`."""
    from models.jdnet.ops import kernels

    inputs = Inputs(*(x.contiguous() for x in inputs))
    b, _, h, w = inputs.features.shape
    out = inputs.features.new_empty(b, inputs.sizes[2], h, w)
    _launch(kernels.forward, [*inputs, out], inputs, footprint)
    return out


def backward(grad_out: Tensor, inputs: Inputs, footprint: int) -> Inputs:
    """Same as `shifts.backward`, for inputs that pass `is_usable`. Deterministic."""
    from models.jdnet.ops import kernels

    inputs = Inputs(*(x.contiguous() for x in inputs))
    features, position, gamma = inputs
    b, _, h, w = features.shape
    grad_features = torch.empty_like(features)
    # No two programs write to the same address: one copy per kernel and image, or per program.
    grad_position = position.new_empty(2, b, *position.shape[1:])
    grad_gamma = gamma.new_empty(b * -(-h * w // BLOCK), *gamma.shape)
    statistics = features.new_empty(b, 3, h, w)
    given = [grad_out.contiguous(), *inputs, statistics, grad_features]
    ours = [grad_position[0], grad_gamma]
    _launch(kernels.backward_of_pixels, [*given, *ours], inputs, footprint)
    _launch(kernels.backward_of_neighbours, [*given, grad_position[1]], inputs, footprint)
    return Inputs(
        grad_features, grad_position.flatten(0, 1).sum(dim=0, keepdim=True), grad_gamma.sum(dim=0)
    )


def _launch(kernel: Any, tensors: list[Tensor], inputs: Inputs, footprint: int) -> None:
    """Launch a kernel on contiguous tensors, over the pixels of every image, on their device."""
    images, _, height, width = inputs.features.shape
    relations, positions, values = inputs.sizes
    with torch.cuda.device_of(inputs.features):
        kernel[-(-height * width // BLOCK), images](
            *(*tensors, height, width),
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
