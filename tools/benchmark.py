"""Time the forward pass and the training step of networks, and print a Markdown table.

    python -m tools.benchmark                                  # JDNet and its unoptimized form
    python -m tools.benchmark --networks jdnet prenet rescan --sizes 128x128 481x321
    python -m tools.benchmark --modes train --sizes 64x64 --batch-size 12 --precisions bfloat16
    python -m tools.benchmark --modes forward train --sizes 64x64 --graph    # on a GPU

Every row runs in its own process, so that its peak memory is its own. Times are the median of
`--repeats` runs after a warm-up, synchronized on a GPU. GMAC includes the attention; a training
step counts as three forward passes. The floor is the time of as many multiply-adds in 3x3
convolutions of 64 channels, measured in the same process, precision and threads; the ratio is the
time over the floor. Waiting is the share of a training step that waits for the data loader, for
square patches: if it is more than a few percent, more --workers or a faster disk make the training
faster.

`jdnet-plain` computes the equations of JDNet literally: attention by unfolding, with the relation's
convolutions applied to every neighbour and everything saved for the backward; scales up-sampled and
concatenated before fusion; dense features concatenated; channels-first.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from config.cli import tool_options
from config.networks import JDNetConfig
from data.pairs import Pair
from data.patches import Patches
from models.jdnet.equations import PlainJDNet
from models.jdnet.network import JDNet
from models.jdnet.ops import choose_implementation
from models.network import Network
from models.registry import CONFIG_CLASSES, build
from training.losses import negative_ssim
from utils.errors import UserError, run_command
from utils.runtime import (
    autocast,
    choose_device,
    choose_precision,
    count_macs,
    count_parameters,
    keep_freed_memory,
    peak_memory,
    synchronize,
)

ROOT = Path(__file__).resolve().parents[1]
PLAIN = "jdnet-plain"
COLUMNS = (
    *("network", "mode", "images", "precision", "attention"),
    *("s", "floor", "ratio", "GMAC", "GiB", "waiting"),
)


@dataclass(frozen=True)
class Options:
    """What to time; every combination is a row of the table."""

    networks: tuple[str, ...] = ("jdnet", PLAIN)
    """Networks with the settings of their papers; jdnet-plain: JDNet written out."""
    units: tuple[int, ...] = (32,)
    """Units of JDNet, one row each."""
    modes: tuple[Literal["forward", "train"], ...] = ("forward",)
    """Forward pass only, or a training step."""
    sizes: tuple[str, ...] = ("481x321",)
    """Image sizes, each WIDTHxHEIGHT in pixels."""
    batch_size: int = 1
    """Images per batch."""
    precisions: tuple[Literal["float32", "tf32", "bfloat16"], ...] = ("float32",)
    """Precisions of the convolutions."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    workers: int = 2
    """Processes of the data loader."""
    graph: bool = False
    """Capture the work in a CUDA graph and time its replay; needs a GPU."""
    repeats: int = 5
    """Number of timed runs, of which the median is reported."""


def measure(case: dict[str, Any]) -> dict[str, str]:
    """Measure one row of the table."""
    keep_freed_memory()
    device = choose_device(case["device"])
    precision = choose_precision(case["precision"], device)
    torch.manual_seed(0)
    if case["units"] is not None:
        config = JDNetConfig(units=case["units"])
        network: Network = PlainJDNet(config) if case["network"] == PLAIN else JDNet(config)
    else:
        network = build(CONFIG_CLASSES[case["network"]]())
    network.place(device)
    width, height = case["size"]
    images = torch.rand(case["batch"], 3, height, width, device=device)
    run = (_forward if case["mode"] == "forward" else _training_step)(network, images, precision)
    if case["graph"]:
        run = _captured(run, device)
    seconds = _median_time(run, case["repeats"], device)
    memory = peak_memory(device)
    waiting = ""
    if case["mode"] == "train" and width == height:
        waiting = f"{_waiting(run, images, case['workers'], case['repeats']):.0%}"

    macs = count_macs(network, height, width) * case["batch"]
    macs *= 3 if case["mode"] == "train" else 1  # the backward costs two forwards
    floor = macs / _convolution_rate(device, precision)
    attention = ""
    if isinstance(network, JDNet):
        unfolds = isinstance(network, PlainJDNet)
        attention = "unfold" if unfolds else choose_implementation(images, 7)
    return {
        "network": f"{case['network']}, {count_parameters(network):,} parameters",
        "mode": case["mode"],
        "images": f"{case['batch']}x{width}x{height}",
        "precision": case["precision"],
        "attention": attention,
        "s": f"{seconds:.4g}",
        "floor": f"{floor:.4g}",
        "ratio": f"{seconds / floor:.2f}",
        "GMAC": f"{macs / 1e9:.1f}",
        "GiB": f"{memory / 2**30:.2f}",
        "waiting": waiting,
    }


def _forward(network: Network, images: Tensor, precision: torch.dtype) -> Callable[[], object]:
    network.eval()

    def run() -> object:
        with torch.inference_mode(), autocast(images.device, precision):
            return network(images)

    return run


def _training_step(
    network: Network, images: Tensor, precision: torch.dtype
) -> Callable[[], object]:
    optimizer = torch.optim.Adam(network.parameters(), capturable=images.is_cuda)

    def run() -> object:
        optimizer.zero_grad()
        with autocast(images.device, precision):
            stages = network.stages(images)
        negative_ssim(stages, images).backward()
        return optimizer.step()

    return run


def _captured(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Capture a function in a CUDA graph; return the function that replays it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(3):  # compiles the kernels, and creates the state of the optimizer
                run()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            run()
    return graph.replay


def _waiting(run: Callable[[], object], images: Tensor, workers: int, repeats: int) -> float:
    """Share of the time of training steps that is spent waiting for their patches."""
    batch, _, side, _ = images.shape
    noise = np.random.default_rng(0).integers(0, 256, (2 * side, 2 * side, 3), dtype=np.uint8)
    loader = DataLoader(
        Patches([Pair("noise", noise, noise)], side, seed=0),
        batch,
        sampler=range((repeats + 2) * batch),
        num_workers=workers,
        pin_memory=images.is_cuda,
    )
    stream, waited, start = iter(loader), 0.0, 0.0
    for step in range(repeats + 2):
        if step == 2:  # the first two warm up
            waited, start = 0.0, time.perf_counter()
        before = time.perf_counter()
        rainy, _ = next(stream)
        waited += time.perf_counter() - before
        images.copy_(rainy, non_blocking=True)
        run()
        synchronize(images.device)
    return waited / (time.perf_counter() - start)


def _median_time(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    seconds = []
    for _ in range(repeats + 2):  # the first two warm up
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return median(seconds[2:])


def _convolution_rate(device: torch.device, precision: torch.dtype) -> float:
    """Multiply-adds per second of 3x3 convolutions of 64 channels, in the layout of the network."""
    channels, side = 64, 1024 if device.type == "cuda" else 256
    x = torch.rand(1, channels, side, side, device=device, dtype=precision)
    x = x.contiguous(memory_format=torch.channels_last)
    layer = nn.Conv2d(channels, channels, 3, padding=1, device=device, dtype=precision)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        seconds = _median_time(lambda: layer(x), 9, device)
    return x.numel() * channels * 9 / seconds


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise UserError(f"--sizes: expected WIDTHxHEIGHT, got {text}") from None


def main(arguments: list[str]) -> None:
    """Run `python -m tools.benchmark [flags]`."""
    if arguments[:1] == ["--case"]:  # internal: one row, in its own process
        print(json.dumps(measure(json.loads(arguments[1]))))
        return
    options = tool_options(Options, arguments, "python -m tools.benchmark", __doc__)
    if unknown := set(options.networks) - {*CONFIG_CLASSES, PLAIN}:
        known = ", ".join((*CONFIG_CLASSES, PLAIN))
        raise UserError(f"no network {min(unknown)!r}: there are {known}")
    sizes = [_size(text) for text in options.sizes]
    if min(options.repeats, options.batch_size, *options.units, *chain(*sizes)) < 1:
        raise UserError("--sizes, --units, --batch-size and --repeats must be positive")
    if options.graph and choose_device(options.device).type != "cuda":
        raise UserError("--graph needs a GPU: remove it, or choose a GPU with --device")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    networks: list[tuple[str, int | None]] = []
    for name in options.networks:
        is_jdnet = name in ("jdnet", PLAIN)
        networks += [(name, units) for units in options.units] if is_jdnet else [(name, None)]
    cases = product(networks, options.modes, sizes, options.precisions)
    for (network, units), mode, size, precision in cases:
        case = {
            "network": network,
            "units": units,
            "mode": mode,
            "size": size,
            "batch": options.batch_size,
            "precision": precision,
            "device": options.device,
            "workers": options.workers,
            "graph": options.graph,
            "repeats": options.repeats,
        }
        row = _measure_in_subprocess(case)
        print("| " + " | ".join(row[c] for c in COLUMNS) + " |", flush=True)


def _measure_in_subprocess(case: dict[str, Any]) -> dict[str, str]:
    command = [sys.executable, "-m", "tools.benchmark", "--case", json.dumps(case)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1:] or [f"status {result.returncode}"]
        message = reason[0].removeprefix("error: ")
        raise UserError(f"{case['network']} at {case['size']} failed: {message}")
    return json.loads(result.stdout)


if __name__ == "__main__":
    run_command(main)
