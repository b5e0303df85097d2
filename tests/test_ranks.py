"""Distributed training: the same patches, the same weights, and the shared bookkeeping."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faults import TRAIN
from torch import Tensor, nn

from config.networks import JDNetConfig
from config.schema import Config
from models import JDNet
from train import train
from training import resume
from training.run import SupervisedOutputs
from utils import checkpoint, ranks
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
WORKER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def torchrun(count: int, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WORKER, str(count), "--", *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def flat(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.double().flatten() for value in state.values()])


@pytest.mark.slow
def test_two_ranks_train_the_same_network(tiny: Config, tmp_path: Path) -> None:
    """R2 has no BatchNorm, so the ranks differ only in the order of sums; accumulation too."""
    recipe = ("--steps", "6", "--accumulate", "2", "--no-self-attention", "--lr", "5e-4")
    command = (*TRAIN, *recipe)
    whole = subprocess.run(
        [sys.executable, *command, "--run", str(tmp_path / "one")],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert whole.returncode == 0
    result = torchrun(2, *command, "--run", str(tmp_path / "two"))
    assert result.returncode == 0, result.stderr
    one, two = (checkpoint.load_weights(tmp_path / n / "best.pt").state for n in ("one", "two"))
    assert (flat(one) - flat(two)).norm() < 1e-6 * flat(one).norm()
    scores = [(tmp_path / n / "scores.csv").read_text().splitlines() for n in ("one", "two")]
    assert [row.split(",")[0] for row in scores[0]] == [row.split(",")[0] for row in scores[1]]
    assert result.stdout.count("rainy input") == 1  # only rank 0 prints
    provenance = json.loads((tmp_path / "two" / "config.json").read_text())["provenance"]
    assert provenance["processes"] == 2


BOOKKEEPING = """
import torch
from torch import nn
from utils import ranks

with ranks.joined("cpu"):
    try:
        ranks.parallel(nn.Sequential(nn.BatchNorm2d(3)), torch.device("cpu"))
    except ranks.UserError as error:
        assert "got 2 processes on CPUs" in str(error) and "--threads" in str(error)
    else:
        raise AssertionError
    assert list(ranks.spread(lambda i: 10 * i, [1, 2, 3])) == [10, 20, 30]
    assert ranks.any_rank(ranks.rank() == 1)
    assert not ranks.any_rank(False)
    try:
        ranks.agree(ranks.rank(), "numbers")
    except Exception as error:
        assert str(error) == "rank 1 has numbers that differ from those of rank 0"
    else:
        assert ranks.rank() == 0
    def fail():
        raise ranks.UserError("only on rank 0")
    try:
        ranks.from_main(fail)
    except ranks.UserError as error:
        assert str(error) == "only on rank 0"
    else:
        raise AssertionError
"""


@pytest.mark.slow
def test_bookkeeping_of_two_ranks(tmp_path: Path) -> None:
    """The functions that talk to all ranks; BatchNorm on CPUs is refused."""
    script = tmp_path / "bookkeeping.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{BOOKKEEPING}")
    result = torchrun(2, str(script))
    assert result.returncode == 0, result.stderr


def test_shares_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together the shares are the batch, in order."""
    monkeypatch.setattr(ranks, "size", lambda: 3)
    shares: list[int] = []
    for number in range(3):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        shares += ranks.share_of_batch(12)
    assert shares == list(range(12))
    with pytest.raises(UserError, match=r"--batch-size .* 3, got 10: use 9 or 12"):
        ranks.share_of_batch(10)
    with pytest.raises(UserError, match=r"got 2: use 3$"):
        ranks.share_of_batch(2)


def test_one_process_is_not_wrapped() -> None:
    layer = nn.BatchNorm2d(3)
    assert ranks.parallel(layer, torch.device("cpu")) is layer
    assert type(layer) is nn.BatchNorm2d
    assert ranks.local_device("auto") == "auto"


def test_replicas_of_data_parallel_compute_in_the_chosen_precision() -> None:
    """DataParallel calls forward() in threads that do not inherit autocast."""
    torch.manual_seed(0)
    network = JDNet(JDNetConfig(units=1, channels=16, scales=1)).eval()
    rainy = torch.rand(1, 3, 16, 16)
    found: list[Tensor] = []
    with torch.inference_mode():
        model = SupervisedOutputs(network, torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            expected = network(rainy)
        exact = network(rainy)

    def replica() -> None:
        with torch.inference_mode():
            found.append(model(rainy)[-1])

    thread = threading.Thread(target=replica)
    thread.start()
    thread.join()
    assert torch.equal(found[0].float(), expected.float())
    assert not torch.equal(found[0].float(), exact)


def test_the_number_of_gpus_is_part_of_the_settings(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DataParallel gives every GPU its own BatchNorm statistics."""
    train(tiny)
    monkeypatch.setattr(resume, "batch_norm_replicas", lambda model: 2)
    with pytest.raises(UserError, match=r"batch_norm_replicas 1, now 2"):
        train(tiny)
    monkeypatch.undo()
    train(tiny)
    for network, count in (
        (JDNet(JDNetConfig(units=1)), 2),
        (JDNet(JDNetConfig(units=1, self_attention=False)), 1),
    ):
        model = nn.DataParallel(network)
        model.device_ids = [0, 1]
        assert resume.batch_norm_replicas(model) == count
        assert resume.batch_norm_replicas(network) == 1


def test_tf32_needs_a_gpu(tiny: Config) -> None:
    with pytest.raises(UserError, match=r"--precision tf32 .*cpu"):
        train(replace(tiny, machine=replace(tiny.machine, precision="tf32", device="cpu")))


def test_the_command_that_resumes_keeps_its_flags_from_torchrun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranks, "size", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert ranks.launcher() == "torchrun --nproc-per-node 4 --"  # torchrun has --run-path
