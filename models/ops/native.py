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


def forward(
    phi: Tensor,
    psi: Tensor,
    beta: Tensor,
    position: Tensor,
    position_padded: Tensor,
    gamma: Tensor,
    footprint: int,
) -> Tensor:
    """As `shifts.forward`; see `is_usable`."""
    inputs = [x.contiguous() for x in (phi, psi, beta, position, position_padded, gamma)]
    out = beta.new_empty(phi.shape[0], beta.shape[1], *phi.shape[2:])
    _call("pairwise_attention_forward", [*inputs, out], _sizes(phi, beta, position, footprint))
    return out


def backward(
    grad_out: Tensor,
    phi: Tensor,
    psi: Tensor,
    beta: Tensor,
    position: Tensor,
    position_padded: Tensor,
    gamma: Tensor,
    footprint: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `shifts.backward`; see `is_usable`. The same to the last bit for any number of threads."""
    library = load()
    assert library is not None, "is_usable comes first"
    images, _, height, _ = phi.shape
    bands = -(-height // library.pairwise_attention_band())
    inputs = [x.contiguous() for x in (grad_out, phi, psi, beta, position, position_padded, gamma)]
    grads = [
        phi.new_zeros(shape)
        for shape in (
            phi.shape,
            psi.shape,
            beta.shape,
            (images, *position.shape[1:]),  # the kernel keeps what threads share apart
            (images, *position_padded.shape[1:]),
            (images * bands, *gamma.shape),
        )
    ]
    sizes = _sizes(phi, beta, position, footprint)
    _call("pairwise_attention_backward", [*inputs, *grads], sizes)
    grad_phi, grad_psi, grad_beta, by_image, padded_by_image, gamma_by_band = grads
    grad_position = by_image.sum(dim=0, keepdim=True)
    grad_padded = padded_by_image.sum(dim=0, keepdim=True)
    return grad_phi, grad_psi, grad_beta, grad_position, grad_padded, gamma_by_band.sum(dim=0)


def _sizes(phi: Tensor, beta: Tensor, position: Tensor, footprint: int) -> list[int]:
    images, relations, height, width = phi.shape
    return [images, relations, position.shape[1], beta.shape[1], height, width, footprint]


def _call(function: str, tensors: list[Tensor], sizes: list[int]) -> None:
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
    getattr(load(), function)(*pointers, *(ctypes.c_int64(size) for size in sizes))
