"""The processes of a distributed run. Only this module knows that there may be several.

torchrun starts the processes, called ranks, and tells each its number by environment variables.
Rank 0 alone writes files and prints. Without torchrun there is one process, and every function here
does what a single process needs.
"""

import contextlib
import functools
import gc
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the other ranks, if torchrun started this process; leave them at the end.

    The ranks communicate with NCCL on GPUs and with gloo on CPUs. All ranks but the first are
    silent.

    Args:
        device: `Machine.device` of the config.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield
        return
    on_gpu = local_device(device).startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(local_device(device))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    with contextlib.ExitStack() as stack:
        stack.callback(dist.destroy_process_group)
        stack.callback(gc.collect)  # a module of `parallel` must not outlive the process group
        if not is_main():
            nowhere = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        try:
            yield
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they may hold such a module
            raise


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def main_only(function: Callable[P, None]) -> Callable[P, None]:
    """Make a function do nothing on all ranks but the first."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        if is_main():
            function(*args, **kwargs)

    return wrapped


def from_main(function: Callable[[], T]) -> T:
    """Call a function on the first rank; return its result on all ranks.

    Raises:
        UserError: on all ranks, if the function raised it.
    """
    if size() == 1:
        return function()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = function()
        except UserError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def spread(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Like map(function, items), with the calls spread over the ranks; all get all results."""
    if size() == 1:
        yield from map(function, items)
        return
    for start in range(0, len(items), size()):
        mine = start + rank()
        result = function(items[mine]) if mine < len(items) else None
        gathered: list[Any] = [None] * size()
        dist.all_gather_object(gathered, result)
        yield from gathered[: len(items) - start]


def agree(value: object, what: str) -> None:
    """Check that a value is the same on all ranks.

    Raises:
        UserError: it differs.
    """
    if from_main(lambda: value) != value:
        raise UserError(f"rank {rank()} has {what} that differ from those of rank 0")


def mean(values: Tensor) -> Tensor:
    """The mean of a tensor over the ranks."""
    if size() > 1:
        values = values / size()
        dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether a flag is set on any rank."""
    return mean(torch.tensor(float(flag))).item() > 0


def local_device(name: str) -> str:
    """The device of this rank: `auto` and `cuda` become GPU number LOCAL_RANK under torchrun."""
    if "LOCAL_RANK" in os.environ and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return name


def launcher() -> str:
    """The program that started this script."""
    if size() == 1:
        return "python"
    return f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', size())} --"


def share_of_batch(batch_size: int) -> range:
    """Positions of this rank's patches in a batch.

    Raises:
        UserError: the batch cannot be divided equally.
    """
    share, rest = divmod(batch_size, size())
    if rest:
        nearest = " or ".join(str(n * size()) for n in (share, share + 1) if n)
        raise UserError(
            f"--batch-size must be divisible by the number of processes, {size()}, got "
            f"{batch_size}: use {nearest}"
        )
    return range(rank() * share, (rank() + 1) * share)


def parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """Average the gradients of a module over the ranks; with one rank, return it unchanged.

    BatchNorm, in place, gets the statistics of the whole batch.

    Raises:
        UserError: the module has BatchNorm and is not on a GPU, as `nn.SyncBatchNorm` requires.
    """
    if size() == 1:
        return module
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
    elif any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        raise UserError(
            f"expected GPUs, got {size()} processes on CPUs, where each would have its own "
            "BatchNorm statistics: use one process with --threads N"
        )
    return DistributedDataParallel(
        module, [device] if device.type == "cuda" else None, forward_sync_buffers=False
    )


def accumulating(module: nn.Module, is_last: bool) -> contextlib.AbstractContextManager[object]:
    """A context for one of several backward passes; only the last one averages the gradients."""
    if isinstance(module, DistributedDataParallel) and not is_last:
        return module.no_sync()
    return contextlib.nullcontext()
