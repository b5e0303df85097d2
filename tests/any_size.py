"""Trainings on sets of any size: the tables in docs/scaling.md.

    python -m tests.any_size FOLDER --pairs 13711 640000 --workers 0 2 4
    python -m tests.any_size FOLDER --workers 1 2 --rates

The first measures start time, memory and resume. It generates pairs of 16x16 pixels in the given
folder: a few files with many names (hard links). The second measures how fast pairs of usual sizes
stream from disk, and how long a step waits for them.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import skimage.data
import torch
from torch.utils.data import DataLoader

from config.cli import tool_options
from config.networks import JDNetConfig
from config.schema import Training
from data import FolderPairs, Patches, find_pairs
from data.patches import PatchPair
from data.synthetic import RAINS, add_rain
from models import JDNet
from training.losses import make_loss
from utils.errors import run_command
from utils.image import write_image

LINKS = 60_000  # names of one file; ext4 allows 65,000
CACHE = "cache"  # folder of the compiled operators and of the sizes of sets
SECONDS = 3  # of measuring a rate
TRAIN = (
    *("train.py", "rain1200", "--layout", "two-folders", "--test-folder", "None"),
    *("--units", "1", "--channels", "16", "--scales", "2", "--batch-size", "4"),
    *("--patch-size", "16", "--steps", "2000", "--log-every", "1", "--eval-every", "2000"),
    *("--device", "cpu", "--threads", "1"),
)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    folder: Path
    """Folder for the pairs and the runs."""
    pairs: tuple[int, ...] = (13_711, 640_000)
    """Numbers of pairs."""
    workers: tuple[int, ...] = (0, 2, 4)
    """Numbers of data loading processes."""
    patience: float = 900
    """Seconds for a start; a longer one is killed."""
    rates: bool = False
    """Measure the rates of streams."""


class Measured(NamedTuple):
    """One start of a training."""

    start: float  # seconds until its first line
    work: float  # CPU seconds until then
    step: float  # seconds until its first step
    memory: list[int]  # MiB of each process; of memory shared by n processes, 1/n
    own: list[int]  # MiB of each process that it has written to


class Rate(NamedTuple):
    """How fast a stream is."""

    pairs: float  # per second
    waiting: float  # share of the time


def generate(folder: Path, count: int) -> None:
    """Write pairs `input/N.png` and `target/N.png`, unless they are there."""
    random = np.random.default_rng(0)
    for kind in ("input", "target"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            file = folder / kind / f"{number}.png"
            if file.exists():
                break
            if number % LINKS == 0:
                write_image(file, random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
                source = file
            else:
                os.link(source, file)


def measure(train: Path, run: Path, workers: int, patience: float) -> Measured | None:
    """Start or resume a training, wait for five steps, and stop it as Ctrl-C does."""
    flags = ("--train-folder", str(train), "--run", str(run), "--workers", str(workers))
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", *TRAIN, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(run.parent / CACHE)},
    )
    assert process.stdout is not None
    end = threading.Timer(patience, process.kill)
    end.start()
    times, work = [], 0.0
    for line in process.stdout:
        if " steps on " in line or line.startswith("step "):
            times.append(time.perf_counter() - began)
            work = work or _cpu_seconds(process.pid)
        if len(times) == 6:
            break
    end.cancel()
    if len(times) < 6:
        return None
    usage = [_memory(number) for number in (process.pid, *_children(process.pid))]
    process.send_signal(signal.SIGINT)
    process.communicate()
    memory, own = ([used[key] for used in usage] for key in ("Pss", "Private_Dirty"))
    return Measured(times[0], work, times[1], memory, own)


def _stat(process: int) -> list[str]:
    """The fields of /proc/PROCESS/stat from the third on (proc(5))."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def _cpu_seconds(process: int) -> float:
    return sum(map(int, _stat(process)[11:13])) / os.sysconf("SC_CLK_TCK")


def _children(process: int) -> list[int]:
    children = []
    for file in Path("/proc").iterdir():
        with suppress(OSError):  # it has just ended
            if file.name.isdecimal() and int(_stat(int(file.name))[1]) == process:
                children.append(int(file.name))
    return children


def _memory(process: int) -> dict[str, int]:
    rows = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return {row.split(":")[0]: int(row.split()[1]) // 1024 for row in rows}


def _shown(memory: list[int]) -> str:
    """Of the training process and of its loading processes."""
    first, *others = memory
    return f"{first} + {len(others)} x {max(others)}" if others else f"{first}"


def photographs(folder: Path, size: tuple[int, int], suffix: str) -> FolderPairs:
    """Twenty pairs of photographs and modelled rain, width x height, which stream from disk."""
    random = np.random.default_rng(0)
    for number in range(20):
        scene = skimage.data.coffee() if number % 2 else skimage.data.astronaut()
        clean = cv2.resize(scene, size, interpolation=cv2.INTER_AREA)
        clean = np.roll(clean, 10 * number, axis=1)
        rainy = add_rain(clean, RAINS["light"], random)
        for kind, image in (("input", rainy), ("target", clean)):
            write_image(folder / kind / f"{number}.{suffix}", image)
    return FolderPairs(find_pairs(folder, "two-folders"))


def waiting(pairs: FolderPairs, workers: int, step: Callable[[PatchPair], None]) -> Rate:
    """Train on batches of 12 patches of 64x64: the rate of pairs, and the share of time waited."""
    loader = DataLoader(
        Patches(pairs, 64, 0), sampler=range(10**6), batch_size=12, num_workers=workers
    )
    batches = iter(loader)
    for _ in range(3):
        step(next(batches))
    began, waited, count = time.perf_counter(), 0.0, 0
    while time.perf_counter() - began < SECONDS:
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        step(batch)
        count += 12
    seconds = time.perf_counter() - began
    return Rate(count / seconds, waited / seconds)


def training_step() -> Callable[[PatchPair], None]:
    """A step of a JDNet with 8 units on the CPU, in bfloat16."""
    network = JDNet(JDNetConfig(units=8))
    optimizer = torch.optim.Adam(network.parameters())
    loss = make_loss(Training())

    def step(batch: PatchPair) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network.stages(batch.rainy)
        loss(outputs, batch.clean).backward()
        optimizer.step()

    return step


def measure_rates(options: Options) -> None:
    """Print the table of rates."""
    steps: dict[str, Callable[[PatchPair], None]] = {
        "none": lambda batch: None,
        "12 ms of a GPU (simulated)": lambda batch: time.sleep(0.012),
        "8 units on the CPU": training_step(),
    }
    print("| images | CPU time per pair | step | workers | pairs per s | waiting |")
    print("|---|---|---|---|---|---|")
    for width, height, suffix in ((481, 321, "png"), (512, 512, "jpg"), (256, 256, "png")):
        name = f"{width}x{height} {suffix.upper()}"
        pairs = photographs(options.folder / name.replace(" ", "-"), (width, height), suffix)
        patches, began = Patches(pairs, 64, 0), time.process_time()
        for index in range(60):
            patches[index]
        name += f" | {(time.process_time() - began) / 60 * 1000:.1f} ms"
        for kind, step in steps.items():
            for workers in options.workers:
                rate, share = waiting(pairs, workers, step)
                print(f"| {name} | {kind} | {workers} | {rate:.0f} | {share:.0%} |", flush=True)


def main(arguments: list[str]) -> None:
    """Run `python -m tests.any_size FOLDER`."""
    options = tool_options(Options, arguments, "python -m tests.any_size", __doc__)
    if options.rates:
        measure_rates(options)
        return
    print(
        "| pairs | workers | start | CPU time | first step | MiB | own MiB | resumed | CPU time |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for count in options.pairs:
        train = options.folder / str(count)
        generate(train, count)
        for workers in options.workers:
            run = options.folder / f"run-{count}-{workers}"
            shutil.rmtree(run, ignore_errors=True)
            for stored in (options.folder / CACHE).rglob("sizes-*"):
                stored.unlink()
            one = measure(train, run, workers, options.patience)
            other = measure(train, run, workers, options.patience) if one else None
            row = [f"{count:,}", str(workers), f"over {options.patience:.0f} s", *[""] * 6]
            if one and other:
                row[2:5] = (f"{x:.1f} s" for x in (one.start, one.work, one.step))
                row[5:7] = _shown(one.memory), _shown(one.own)
                row[7:] = f"{other.step:.1f} s", f"{other.work:.1f} s"
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    run_command(main)
