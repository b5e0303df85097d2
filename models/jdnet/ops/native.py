"""Pairwise attention (Eq. 2-4) on the CPU in C++, float32 only; `library.py` compiles it."""

import ctypes

import torch
from torch import Tensor

from models.jdnet.ops.inputs import Inputs
from models.jdnet.ops.library import load


def is_usable(phi: Tensor, footprint: int) -> bool:
    """Whether the C++ code supports these inputs; compiles it if necessary."""
    if phi.device.type != "cpu" or phi.dtype != torch.float32:
        return False
    library = load()
    return library is not None and footprint <= library.pairwise_attention_largest_footprint()


def forward(inputs: Inputs, footprint: int) -> Tensor:
    """Same as `shifts.forward`, for inputs that pass `is_usable`."""
    b, _, h, w = inputs.phi.shape
    out = inputs.beta.new_empty(b, inputs.beta.shape[1], h, w)
    _call("pairwise_attention_forward", [*inputs, out], inputs, footprint)
    return out


def backward(grad_out: Tensor, inputs: Inputs, footprint: int) -> Inputs:
    """Same as `shifts.backward`, for inputs that pass `is_usable`.

    The result is bitwise identical for any number of threads.
    """
    library = load()
    assert library is not None, "call is_usable first"
    phi, psi, beta, position, position_padded, gamma = inputs
    images, _, height, _ = phi.shape
    bands = -(-height // library.pairwise_attention_band())
    grads = Inputs(
        torch.zeros_like(phi, memory_format=torch.contiguous_format),
        torch.zeros_like(psi, memory_format=torch.contiguous_format),
        torch.zeros_like(beta, memory_format=torch.contiguous_format),
        # One copy per image (gamma: per image and band), summed below: no two threads write to the
        # same address.
        phi.new_zeros(images, *position.shape[1:]),
        phi.new_zeros(images, *position_padded.shape[1:]),
        phi.new_zeros(images * bands, *gamma.shape),
    )
    _call("pairwise_attention_backward", [grad_out, *inputs, *grads], inputs, footprint)
    return grads._replace(
        position=grads.position.sum(dim=0, keepdim=True),
        position_padded=grads.position_padded.sum(dim=0, keepdim=True),
        gamma=grads.gamma.sum(dim=0),
    )


def _call(function: str, tensors: list[Tensor], inputs: Inputs, footprint: int) -> None:
    """Call a compiled function; output tensors must be contiguous, as they are written in place."""
    images, relations, height, width = inputs.phi.shape
    positions, values = inputs.position.shape[1], inputs.beta.shape[1]
    sizes = (images, relations, positions, values, height, width, footprint)
    contiguous = [tensor.contiguous() for tensor in tensors]
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in contiguous)
    getattr(load(), function)(*pointers, *(ctypes.c_int64(size) for size in sizes))
