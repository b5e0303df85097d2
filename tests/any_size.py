"""Start time, memory and resume of a training on any number of pairs: the table in docs/scaling.md.

    python -m tests.any_size /tmp/pairs --pairs 13711 640000 --workers 0 2 4

Generates pairs of 16x16 pixels in the given folder: a few files with many names (hard links).
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config.cli import tool_options
from utils.errors import run_command
from utils.image import write_image

LINKS = 60_000  # names of one file; ext4 allows 65,000
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


class Measured(NamedTuple):
    """One start of a training."""

    start: float  # seconds until its first line
    step: float  # seconds until its first step
    memory: list[int]  # MiB of each process; of memory shared by n processes, 1/n
    own: list[int]  # MiB of each process that it has written to


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
    )
    assert process.stdout is not None
    end = threading.Timer(patience, process.kill)
    end.start()
    times: list[float] = []
    for line in process.stdout:
        if " steps on " in line or line.startswith("step "):
            times.append(time.perf_counter() - began)
        if len(times) == 6:
            break
    end.cancel()
    if len(times) < 6:
        return None
    usage = [_memory(number) for number in (process.pid, *_children(process.pid))]
    process.send_signal(signal.SIGINT)
    process.communicate()
    return Measured(*times[:2], *([u[key] for u in usage] for key in ("Pss", "Private_Dirty")))


def _children(process: int) -> list[int]:
    running = [file for file in Path("/proc").iterdir() if file.name.isdecimal()]
    stats = {int(f.name): (f / "stat").read_text() for f in running if (f / "stat").exists()}
    return [n for n, stat in stats.items() if int(stat.rpartition(")")[2].split()[1]) == process]


def _memory(process: int) -> dict[str, int]:
    rows = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return {row.split(":")[0]: int(row.split()[1]) // 1024 for row in rows}


def _shown(memory: list[int]) -> str:
    """Of the training process and of its loading processes."""
    first, *others = memory
    return f"{first}" + f" + {len(others)} x {max(others)}" * bool(others)


def main(arguments: list[str]) -> None:
    """Run `python -m tests.any_size FOLDER`."""
    options = tool_options(Options, arguments, "python -m tests.any_size", __doc__)
    print("| pairs | workers | start | first step | MiB per process | of its own | resumed after |")
    print("|---|---|---|---|---|---|---|")
    for count in options.pairs:
        train = options.folder / str(count)
        generate(train, count)
        for workers in options.workers:
            run = options.folder / f"run-{count}-{workers}"
            shutil.rmtree(run, ignore_errors=True)
            one = measure(train, run, workers, options.patience)
            other = measure(train, run, workers, options.patience) if one else None
            row = [f"{count:,}", str(workers), f"over {options.patience:.0f} s", "", "", "", ""]
            if one and other:
                row[2:4] = f"{one.start:.1f} s", f"{one.step:.1f} s"
                row[4:] = _shown(one.memory), _shown(one.own), f"{other.step:.1f} s"
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    run_command(main)
