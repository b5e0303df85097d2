"""Compare a compiled operator with its PyTorch form once, before its first use on a device.

A compiler, a driver or a card may make something else of the code than was meant. An operator that
fails is not used in this process, and one line says so. A comparison takes milliseconds, not
counting the compilation.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor


class Result(NamedTuple):
    """A result of the operator, and what the PyTorch form computes in float64 on the CPU."""

    name: str
    ours: Tensor
    exact: Tensor
    tolerance: float  # of the difference, relative to the largest exact value, at least to 1


_VERDICTS: dict[tuple[str, torch.device], bool] = {}
_CHECKING = Lock()


def passes(operator: str, device: torch.device, results: Callable[[], Iterable[Result]]) -> bool:
    """Whether an operator computes on a device what its PyTorch form does; if not, says so once.

    One thread at a time, because DataParallel calls this from one thread per GPU. False while a
    CUDA graph is captured, which allows no comparison, unless there was one before.

    Args:
        operator: its name in the message.
        device: where it runs.
        results: computes its outputs and gradients on small tensors.
    """
    if (known := _VERDICTS.get((operator, device))) is not None:
        return known
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return False
    with _CHECKING:
        if (operator, device) not in _VERDICTS:
            failure = _failure(results)
            if failure:
                print(
                    f"note: slower PyTorch operators are used ({operator}: {failure})",
                    file=sys.stderr,
                )
            _VERDICTS[operator, device] = not failure
        return _VERDICTS[operator, device]


def _failure(results: Callable[[], Iterable[Result]]) -> str:
    """What is wrong, in one line; empty if nothing is."""
    report = "; please report this line with the output of python -m tools.check_gpu"
    try:
        for name, ours, exact, tolerance in results():
            error = (ours.cpu().double() - exact).abs().max().item()
            allowed = tolerance * max(1.0, exact.abs().max().item())
            if not error <= allowed:  # or NaN
                return f"{name} is off by {error:.2g}, at most {allowed:.2g} is right{report}"
    except (torch.OutOfMemoryError, MemoryError):
        raise  # the next call may have memory
    except Exception as error:
        first = (str(error).strip() or repr(error)).splitlines()[0]
        return first if _is_of_a_missing_tool(error) else f"{first}{report}"
    return ""


def _is_of_a_missing_tool(error: Exception) -> bool:
    """Whether Triton is missing, or does not find a working C compiler."""
    missing = isinstance(error, ImportError) or "C compiler" in str(error)
    return missing or isinstance(error, OSError | subprocess.SubprocessError)
