"""Faults that break training runs, and a laboratory that compares the weights afterwards.

Every fault breaks a small run, repeats its command, and compares the final weights with those of an
unbroken run, bit for bit.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import training.resume
from utils import checkpoint
from utils.errors import UserError
from utils.runtime import REPOSITORY

TRAIN = (
    *("train.py", "synthetic", "--train-pairs", "6", "--test-pairs", "2", "--image-size", "32"),
    *("--units", "1", "--channels", "16", "--scales", "2", "--batch-size", "2"),
    *("--patch-size", "16", "--eval-every", "20", "--log-every", "1", "--save-minutes", "0"),
    *("--device", "cpu", "--workers", "1"),
)
# The second variable makes torchrun forget addresses of killed processes (PyTorch issue 135712).
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
PATIENCE = 300  # seconds for one process
KILLS, STEPS, TRIES = 2, 40, 10  # the table in docs/training.md: 25, 400, 100


@dataclass
class Outcome:
    """How often a fault was tried, and how often the run survived it."""

    tried: int = 0
    survived: int = 0
    remark: str = ""


class Lab:
    """Starts runs in a folder and compares their weights.

    Args:
        folder: for the runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.random = folder, random.Random(0)

    def start(self, name: str, ranks: int = 1, limit: int | None = None) -> subprocess.Popen[str]:
        """Start or resume the run `name`.

        Args:
            name: folder of the run.
            ranks: number of processes; torchrun starts them if there are several. These train
                without self-attention, because processes on CPUs cannot share BatchNorm.
            limit: largest file the run can write, bytes.
        """
        launcher, command = [sys.executable], [*TRAIN, "--steps", str(STEPS)]
        command += ["--run", str(self.folder / name)]
        if ranks > 1:
            torchrun = ("-m", "torch.distributed.run", "--standalone", "--max-restarts", "2")
            launcher += [*torchrun, "--nproc-per-node", str(ranks), "--"]
            command.append("--no-self-attention")
        set_limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit or 0, limit or 0))
        return subprocess.Popen(
            [*launcher, *command],
            cwd=REPOSITORY,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=None if limit is None else set_limit,
        )

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for a process; return its exit status and the last line it printed."""
        _, stderr = process.communicate(timeout=PATIENCE)
        lines = [line for line in stderr.splitlines() if line.strip()]
        return process.returncode, lines[-1] if lines else ""

    def run(self, name: str, ranks: int = 1) -> None:
        """Run or resume `name` to its end."""
        status, line = self.finish(self.start(name, ranks))
        assert status == 0, f"the run {name} failed: {line}"

    def wait(self, process: subprocess.Popen[str], name: str, step: int) -> None:
        """Wait until the run `name` has saved `step`, or has ended."""
        while process.poll() is None and self.step(name) < step:
            time.sleep(0.01)

    def step(self, name: str) -> int:
        """The step of the resume state of a run; 0 if there is none."""
        try:
            return int(checkpoint.load(self.folder / name / "latest.pt")["step"])
        except UserError:
            return 0

    def same(self, name: str, reference: str = "unbroken") -> bool:
        """Whether the final weights of two runs are identical bit for bit."""
        if not (self.folder / reference / "scores.json").exists():
            self.run(reference, ranks=2 if reference == "unbroken-2" else 1)
        one, other = (
            checkpoint.load_weights(self.folder / n / "best.pt").state for n in (name, reference)
        )
        return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def kill(lab: Lab) -> Outcome:
    """SIGKILL at random moments of one run, then resume."""
    outcome, half_written = Outcome(), 0
    started = time.monotonic()
    process = lab.start("killed")
    lab.wait(process, "killed", 1)
    startup = time.monotonic() - started
    while outcome.tried < KILLS and process.poll() is None:
        time.sleep(lab.random.uniform(0, 0.1 * startup))
        os.killpg(process.pid, signal.SIGKILL)
        lab.finish(process)
        outcome.tried += 1
        half_written += bool(list((lab.folder / "killed").glob("*.partial")))
        before = lab.step("killed")
        process = lab.start("killed")
        if lab.random.random() < 0.8:  # otherwise the next kill comes during the start
            lab.wait(process, "killed", before + 1)
    lab.finish(process)
    lab.run("killed")
    outcome.survived = outcome.tried if lab.same("killed") else 0
    outcome.remark = f"{half_written} inside the writing of a checkpoint"
    return outcome


def stop(lab: Lab, number: signal.Signals) -> Outcome:
    """SIGTERM or Ctrl-C to all processes: save, exit, resume."""
    name = number.name.lower()
    process = lab.start(name)
    lab.wait(process, name, 5)
    os.killpg(process.pid, number)
    status, line = lab.finish(process)
    saved = status == 128 + number and "to resume: python train.py" in line
    lab.run(name)
    return Outcome(1, int(saved and lab.same(name)), line.split(":")[0])


def kill_rank(lab: Lab) -> Outcome:
    """SIGKILL one of two ranks; torchrun starts both again."""
    name = "rank"
    process = lab.start(name, ranks=2)
    lab.wait(process, name, 5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    status, line = lab.finish(process)
    return Outcome(1, int(status == 0 and lab.same(name, "unbroken-2")), line if status else "")


def full_disk(lab: Lab) -> Outcome:
    """A checkpoint cannot be written: one line, and the state before stays."""
    name = "full"
    process = lab.start(name)
    lab.wait(process, name, 5)
    os.killpg(process.pid, signal.SIGKILL)
    lab.finish(process)
    before = lab.step(name)
    status, line = lab.finish(lab.start(name, limit=20_000))
    kept = status == 2 and line.startswith("error: cannot write") and lab.step(name) == before
    lab.run(name)
    return Outcome(1, int(kept and lab.same(name)), line.rsplit("/", 1)[-1])


def second_run(lab: Lab) -> Outcome:
    """A second training in the same folder is refused; the first one goes on."""
    name = "shared"
    first = lab.start(name)
    lab.wait(first, name, 1)
    os.killpg(first.pid, signal.SIGSTOP)  # so that it does not end too early
    status, line = lab.finish(lab.start(name))
    os.killpg(first.pid, signal.SIGCONT)
    refused = status == 2 and "another process is training" in line
    lab.finish(first)
    return Outcome(1, int(refused and lab.same(name)), "refused" if refused else line)


def damage(lab: Lab, change: Callable[[bytearray], None], name: str) -> Outcome:
    """A damaged resume state is refused; without it the run goes on from the one before.

    Damage in bytes without meaning, such as the padding between tensors, changes nothing.
    """
    process = lab.start(name)
    lab.wait(process, name, 5)
    os.killpg(process.pid, signal.SIGTERM)  # SIGKILL may come while latest.pt is replaced
    lab.finish(process)
    latest = lab.folder / name / "latest.pt"
    whole, refused, unchanged = latest.read_bytes(), 0, 0
    state = checkpoint.load(latest)
    for _ in range(TRIES):
        content = bytearray(whole)
        change(content)
        latest.write_bytes(content)
        try:
            unchanged += _same_tensors(training.resume.read_state(latest.parent), state)
        except UserError as error:
            refused += "delete it to resume from" in str(error)
    latest.unlink()
    lab.run(name)
    survived = refused + unchanged if lab.same(name) else 0
    return Outcome(TRIES, survived, f"{refused} refused, {unchanged} without effect")


def _same_tensors(one: Any, other: Any) -> bool:
    """Whether two resume states are identical."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same_tensors(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same_tensors, one, other))
    return bool(one == other)


def truncate(lab: Lab, content: bytearray) -> None:
    """Cut a file at a random position."""
    del content[lab.random.randrange(len(content)) :]


def flip_bit(lab: Lab, content: bytearray) -> None:
    """Flip a random bit."""
    content[lab.random.randrange(len(content))] ^= 1 << lab.random.randrange(8)


FAULTS: dict[str, Callable[[Lab], Outcome]] = {
    "kill-9": kill,
    "sigterm": partial(stop, number=signal.SIGTERM),
    "ctrl-c": partial(stop, number=signal.SIGINT),
    "rank-killed": kill_rank,
    "full-disk": full_disk,
    "two-runs": second_run,
    "truncated": lambda lab: damage(lab, partial(truncate, lab), "truncated"),
    "bit-flip": lambda lab: damage(lab, partial(flip_bit, lab), "flipped"),
}
