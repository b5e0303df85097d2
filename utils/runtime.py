"""Device, threads, memory, costs of a network, and provenance."""

import contextlib
import copy
import ctypes
import os
import platform
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from utils import ranks
from utils.errors import UserError
from utils.memory import available

REPOSITORY = Path(__file__).resolve().parent.parent


def choose_device(name: str) -> torch.device:
    """Return a device; `auto` is CUDA if available, else the CPU. A numbered GPU becomes current.

    Raises:
        UserError: torch does not know the name, or the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)  # else some operations open a context on GPU 0
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} is not available ({reason}): try --device cpu") from None
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether all processors of a device have instructions for bfloat16.

    Without them bfloat16 is converted to float32 and back in every layer, which is slower than
    float32. On the CPU these are AMX and AVX-512 BF16; other processors have not been tried.
    """
    if device.type == "cuda":
        return all(torch.cuda.get_device_capability(gpu) >= (8, 0) for gpu in _gpus(device))
    instructions = torch.cpu.get_capabilities()
    names = ("amx_bf16", "avx512_bf16")
    return device.type == "cpu" and any(instructions.get(name, False) for name in names)


def name_precision(name: str, device: torch.device) -> str:
    """Replace `auto`: by bfloat16 if the device has instructions for it, else by float32."""
    if name != "auto":
        return name
    return "bfloat16" if has_fast_bfloat16(device) else "float32"


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Set the precision of float32 convolutions on GPUs; return the dtype for `autocast`.

    Prints a note, once, if bfloat16 is asked for by name where it is slower.

    Args:
        name: float32 is exact; tf32 computes convolutions with 10 bits of mantissa, which newer
            GPUs do faster; bfloat16 computes them in bfloat16; auto: see `name_precision`.
        device: device of the network.

    Raises:
        UserError: tf32 without a GPU, or another name.
    """
    if name not in (names := ("auto", "float32", "tf32", "bfloat16")):
        raise UserError(f"no precision {name!r}: expected {', '.join(names)}")
    if name == "tf32" and device.type != "cuda":
        raise UserError(f"--precision tf32 needs a GPU, got {device}: use float32 or bfloat16")
    if name == "bfloat16" and not has_fast_bfloat16(device):
        _note_slow_bfloat16(device)
    name = name_precision(name, device)
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    # Not the matrix products: SSIM takes differences of moments, and the attention of neighbouring
    # coordinates, which 10 bits cannot tell apart.
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.bfloat16 if name == "bfloat16" else torch.float32


@cache
def _note_slow_bfloat16(device: torch.device) -> None:
    print(
        f"note: no bfloat16 instructions found for {device}: --precision float32 is usually faster "
        "there (auto chooses)",
        file=sys.stderr,
    )


def autocast(
    device: torch.device, precision: torch.dtype
) -> contextlib.AbstractContextManager[object]:
    """A context that computes convolutions and matrix products in a precision."""
    return torch.autocast(device.type, precision, precision != torch.float32)


def set_threads(count: int | None) -> None:
    """Set the number of CPU threads; None keeps the default, all cores."""
    if count is not None:
        torch.set_num_threads(count)
        cv2.setNumThreads(count)


def cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, because page faults can cost more than the arithmetic.

    This halves the time of a 481x321 forward pass. Does nothing with other C libraries.
    """
    if sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
        libc.mallopt(trim_threshold, -1)  # never return memory to the system
        libc.mallopt(mmap_max, 0)


def synchronize(device: torch.device) -> None:
    """Wait for the GPU to finish, as timings need; does nothing on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of tensors on a GPU, of the whole process on the CPU.

    0 where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * (1 if sys.platform == "darwin" else 1024)


def free_memory(device: torch.device) -> int:
    """Memory in bytes that a new tensor may use: of the GPU, or of this process on the CPU."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return available()


def count_parameters(network: nn.Module) -> int:
    """Number of learnable parameters."""
    return sum(p.numel() for p in network.parameters())


def count_macs(network: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of one forward pass on a [1, 3, height, width] image, on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        copy.deepcopy(network).to("meta")(torch.empty(1, 3, height, width, device="meta"))
    return int(counter.get_total_flops()) // 2


def provenance(device: torch.device) -> dict[str, Any]:
    """What is needed to reproduce a result: command, commit, versions, machine.

    Args:
        device: the device used; `cuda` without a number means all GPUs.
    """
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "version": _version(),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a subclass of str; plain values only
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "gpu": ", ".join(map(torch.cuda.get_device_name, _gpus(device))),
        "processes": ranks.size(),
        "threads": torch.get_num_threads(),
    }


def _gpus(device: torch.device) -> list[int]:
    if device.type != "cuda":
        return []
    return list(range(torch.cuda.device_count())) if device.index is None else [device.index]


def _version() -> str:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]["version"]


def _commit() -> str:
    """The checked-out commit, marked -dirty if files differ from it; empty outside git."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()
