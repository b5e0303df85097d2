"""The check of a GPU, on the CPU: its parts, its table, and what becomes of a part that crashes."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from config.schema import Config
from models.jdnet.ops import library, native, self_check, shifts
from models.jdnet.ops.inputs import Inputs
from tools import check_gpu
from tools.check_gpu import Check, Part
from train import train
from utils.errors import UserError
from utils.runtime import choose_precision

CPU = torch.device("cpu")


def results(checks: Sequence[Check]) -> set[str]:
    assert checks
    return {check.result for check in checks}


def test_every_part_has_a_line_in_the_help() -> None:
    documented = (check_gpu.__doc__ or "").partition("The parts:")[2].splitlines()
    names = [line.split()[0] for line in documented if line.strip()]
    assert names == list(check_gpu.PARTS) == list(check_gpu.Options.parts)


def test_the_operators_pass_on_the_cpu() -> None:
    if library.load() is None:
        pytest.skip("no C++ compiler on this machine")
    attention = list(check_gpu.attention(CPU))
    assert results(attention) == results(list(check_gpu.fusion(CPU))) == {"ok"}
    assert sum("bfloat16" in check.check for check in attention) == 6
    assert "error" in attention[1].detail


def test_a_wrong_operator_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is replaced by the PyTorch form; the check says so, and checks that form."""
    if library.load() is None:
        pytest.skip("no C++ compiler on this machine")

    def broken(inputs: Inputs, footprint: int) -> Tensor:
        return shifts.forward(inputs, footprint) + 1

    monkeypatch.setattr(native, "forward", broken)
    monkeypatch.setattr(self_check, "_VERDICTS", {})
    choice, *others = check_gpu.attention(CPU)
    assert choice == Check("choice", "FAILED", "shifts, expected native")
    assert results(others) == {"ok"}
    assert "please report this line" in capsys.readouterr().err
    monkeypatch.setattr(self_check, "_VERDICTS", {("C++ attention", CPU): True})
    choice, *others = check_gpu.attention(CPU)
    assert choice.result == "ok"
    assert results(others) == {"FAILED"}


@pytest.mark.parametrize("value", [0.002, float("nan")])
def test_a_difference_fails(value: float) -> None:
    ones = torch.ones(3)
    wrong = torch.tensor([1.0, 1 + value, 1.0])
    assert check_gpu._compare("a", [ones, ones], [ones, ones], 1e-3).result == "ok"
    assert check_gpu._compare("a", [ones, wrong], [ones, ones], 1e-3).result == "FAILED"
    assert check_gpu._compare("a", [wrong, ones], [ones, ones], 1e-3).result == "FAILED"


def test_the_network_passes_on_the_cpu() -> None:
    assert results(list(check_gpu.network(CPU))) == {"ok"}


def test_what_needs_a_gpu_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    parts: tuple[Part, ...] = ("graph", "data-parallel")
    for part in parts:
        check_gpu.run_here(part, CPU)
        (line,) = capsys.readouterr().out.splitlines()
        assert json.loads(line)["result"] == "skipped"
        assert "GPU" in json.loads(line)["detail"]


def test_the_first_losses_are_those_of_train(tiny: Config, tmp_path: Path) -> None:
    choose_precision("float32", CPU)
    assert tiny.run is not None
    ours = check_gpu.first_losses(tiny, "cpu", 4)
    assert not tiny.run.exists()
    train(tiny)
    events = map(json.loads, (tiny.run / "log.jsonl").read_text().splitlines())
    losses = [event["1-ssim"] for event in events if event["event"] == "step"]
    assert ours == pytest.approx(losses[:4], rel=1e-5)


def part_that(code: str) -> list[str]:
    line = json.dumps({"check": "first", "result": "ok", "detail": "fine"})
    return [sys.executable, "-c", f"import os, sys, time\nprint({line!r}, flush=True)\n{code}"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.kill(os.getpid(), 11)", "killed by signal 11"),
        ("sys.exit('error: no such card')", "status 1: no such card"),
        ("time.sleep(60)", "took too long"),
    ],
    ids=["crash", "error", "hangs"],
)
def test_a_part_that_ends_badly_keeps_its_checks(
    code: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_gpu, "PATIENCE", 1 if "sleep" in code else 60)
    checks = check_gpu.run_part(part_that(code), time.monotonic() + 600)
    assert checks == [Check("first", "ok", "fine"), Check("the whole part", "FAILED", reason)]


def test_what_is_not_done_in_time_is_skipped() -> None:
    first, last = check_gpu.run_part(part_that("time.sleep(60)"), time.monotonic() + 1)
    assert (first.check, last.result) == ("first", "skipped")


def test_a_note_of_an_operator_is_in_the_table() -> None:
    note = "note: slower PyTorch operators are used (triton: broken)"
    code = f"print({note!r}, file=sys.stderr); print('other', file=sys.stderr)"
    checks = check_gpu.run_part(part_that(code), time.monotonic() + 60)
    assert checks[1:] == [Check("note", "measured", note)]


def test_the_table_the_file_and_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"fusion": [Check("a", "ok", "1 | 2")], "rates": [Check("b", "FAILED", "no")]}
    monkeypatch.setattr(check_gpu, "run_part", lambda command, _: found[command[4]])
    target = tmp_path / "new" / "report.json"
    flags = ["--device", "cpu", "--output", str(target), "--parts"]
    check_gpu.main([*flags, "fusion"])
    shown = capsys.readouterr().out
    assert "| fusion | a | ok | 1 / 2 |\n" in shown
    assert f"1 checks, 0 failed; written: {target}" in shown
    with pytest.raises(UserError, match=r"1 checks failed: please report .*report\.json"):
        check_gpu.main([*flags, "fusion", "rates"])
    report = json.loads(target.read_text())
    assert [row["result"] for row in report["checks"]] == ["ok", "FAILED"]
    assert {"torch", "commit", "gpu"} <= report["provenance"].keys()
    check_gpu.main([*flags, "rates", "--minutes", "0.01"])
    assert "| rates | the rest | skipped | no time left" in capsys.readouterr().out
    with pytest.raises(UserError, match="--minutes must be positive"):
        check_gpu.main(["--minutes", "0"])


@pytest.mark.slow
def test_parts_run_in_processes_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.json"
    parts = ["machine", "torchrun"]
    check_gpu.main(["--device", "cpu", "--output", str(target), "--parts", *parts])
    rows = json.loads(target.read_text())["checks"]
    assert {row["part"] for row in rows} == set(parts)
    assert "2 processes, without attention | ok" in capsys.readouterr().out
