"""The machine: device, memory, and a record of what ran."""

import copy
import ctypes
import platform
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU; any other name is torch's.

    Raises:
        UserError: torch does not know the name, or the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no device {name!r} here ({reason}): try --device cpu") from None
    # float32 means float32; without this, convolutions on newer GPUs keep 10 bits of the mantissa.
    torch.backends.cudnn.allow_tf32 = False
    return device


def set_threads(count: int | None) -> None:
    """Run the CPU's arithmetic in so many threads; None leaves PyTorch's choice, all cores."""
    if count is not None:
        torch.set_num_threads(count)


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed: fresh pages can cost more than the arithmetic on them.

    A 481x321 forward takes about half the time with it. Does nothing on other C libraries.
    """
    if sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
        libc.mallopt(trim_threshold, -1)  # never, however much is free
        libc.mallopt(mmap_max, 0)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU to finish; without it a timing measures the queueing alone."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: of torch's tensors on a GPU, of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * (1 if sys.platform == "darwin" else 1024)


def count_parameters(network: nn.Module) -> int:
    """Number of learnt values."""
    return sum(p.numel() for p in network.parameters())


def count_macs(network: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of one forward on a [1, 3, height, width] image; nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        copy.deepcopy(network).to("meta")(torch.empty(1, 3, height, width, device="meta"))
    return int(counter.get_total_flops()) // 2


def provenance() -> dict[str, Any]:
    """What a number must carry to be reproduced: command, commit, versions, machine."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a str subclass, which is no plain value
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "threads": torch.get_num_threads(),
    }


def _commit() -> str:
    """The checked-out commit, marked where files differ from it; empty outside git."""
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
