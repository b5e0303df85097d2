"""Pairwise attention (Eq. 2-4) on the CPU in C++, float32 only; `library.py` compiles it."""

import ctypes

import torch
from torch import Tensor

from models.jdnet.ops.inputs import Inputs
from models.jdnet.ops.library import load
from models.jdnet.ops.self_check import passes
from models.jdnet.ops.shifts import compare


def is_usable(x: Tensor, footprint: int) -> bool:
    """Whether the C++ code supports inputs like x; compiles it if necessary."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    library = load()
    if library is None or footprint > library.pairwise_attention_largest_footprint():
        return False
    return passes("C++ attention", x.device, lambda: compare(forward, backward, x.device))


def forward(inputs: Inputs, footprint: int) -> Tensor:
    """Same as `shifts.forward`, for inputs that pass `is_usable`."""
    b, _, h, w = inputs.features.shape
    out = inputs.features.new_empty(b, inputs.sizes[2], h, w)
    _call("pairwise_attention_forward", [*inputs, out], inputs, footprint)
    return out


def backward(grad_out: Tensor, inputs: Inputs, footprint: int) -> Inputs:
    """Same as `shifts.backward`, for inputs that pass `is_usable`.

    The result is bitwise identical for any number of threads.
    """
    library = load()
    assert library is not None, "call is_usable first"
    features, position, gamma = inputs
    images, _, height, _ = features.shape
    bands = -(-height // library.pairwise_attention_band())
    grads = Inputs(
        torch.zeros_like(features, memory_format=torch.contiguous_format),
        # One copy per image (gamma: per image and band), summed below: no two threads write to the
        # same address.
        position.new_zeros(images, *position.shape[1:]),
        gamma.new_zeros(images * bands, *gamma.shape),
    )
    _call("pairwise_attention_backward", [grad_out, *inputs, *grads], inputs, footprint)
    return grads._replace(
        position=grads.position.sum(dim=0, keepdim=True), gamma=grads.gamma.sum(dim=0)
    )


def _call(function: str, tensors: list[Tensor], inputs: Inputs, footprint: int) -> None:
    """Call a compiled function; output tensors must be contiguous, as they are written in place."""
    images, _, height, width = inputs.features.shape
    sizes = (images, *inputs.sizes, height, width, footprint)
    contiguous = [tensor.contiguous() for tensor in tensors]
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in contiguous)
    getattr(load(), function)(*pointers, *(ctypes.c_int64(size) for size in sizes))
