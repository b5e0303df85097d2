"""Pairwise attention on the CPU in C++, compiled on first use by the machine's own compiler.

The library is kept in the user's cache under a name made of the source, the compiler and the
processor, so each is compiled once. Float32 only. Threads are torch's own OpenMP threads.
"""

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from models.ops.inputs import Inputs

SOURCE = Path(__file__).with_name("pairwise_attention.cpp")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp")


def is_usable(phi: Tensor, footprint: int) -> bool:
    """Whether the compiled code can take these inputs; compiles it if need be."""
    if phi.device.type != "cpu" or phi.dtype != torch.float32:
        return False
    library = load()
    return library is not None and footprint <= library.pairwise_attention_largest_footprint()


@cache
def load() -> ctypes.CDLL | None:
    """The compiled library; None, and one line on stderr, where it cannot be had."""
    compiler = os.environ.get("CXX", "c++")
    try:
        version = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout
        identity = version + SOURCE.read_text() + " ".join(FLAGS) + _processor()
        name = f"pairwise_attention-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
        cached = _cache_folder() / name
        if not cached.exists():
            _compile(compiler, cached)
        return ctypes.CDLL(str(cached))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        first = str(reason).strip().splitlines()[0]
        print(f"note: the slower PyTorch attention is used ({compiler}: {first})", file=sys.stderr)
        return None


def _compile(compiler: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        subprocess.run(
            [compiler, *FLAGS, "-fPIC", "-shared", "-o", str(built), str(SOURCE)],
            capture_output=True,
            text=True,
            check=True,
        )
        os.replace(built, target)  # whole or not at all, whoever else compiles meanwhile


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jdnet"


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("flags")), platform.processor())


def forward(inputs: Inputs, footprint: int) -> Tensor:
    """As `shifts.forward`; see `is_usable`."""
    b, _, h, w = inputs.phi.shape
    out = inputs.beta.new_empty(b, inputs.beta.shape[1], h, w)
    _call("pairwise_attention_forward", [*inputs, out], inputs, footprint)
    return out


def backward(grad_out: Tensor, inputs: Inputs, footprint: int) -> Inputs:
    """As `shifts.backward`; see `is_usable`. The same to the last bit for any number of threads."""
    library = load()
    assert library is not None, "is_usable comes first"
    phi, psi, beta, position, position_padded, gamma = inputs
    images, _, height, _ = phi.shape
    bands = -(-height // library.pairwise_attention_band())
    grads = Inputs(
        torch.zeros_like(phi, memory_format=torch.contiguous_format),
        torch.zeros_like(psi, memory_format=torch.contiguous_format),
        torch.zeros_like(beta, memory_format=torch.contiguous_format),
        # What threads would share, the kernel keeps apart.
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
    """Call a compiled function on tensors, contiguous ones in place, and the sizes of the call."""
    images, relations, height, width = inputs.phi.shape
    positions, values = inputs.position.shape[1], inputs.beta.shape[1]
    sizes = (images, relations, positions, values, height, width, footprint)
    contiguous = [tensor.contiguous() for tensor in tensors]
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in contiguous)
    getattr(load(), function)(*pointers, *(ctypes.c_int64(size) for size in sizes))
