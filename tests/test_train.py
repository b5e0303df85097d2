"""The training loop: resume, workers, losses, errors."""

import errno
import hashlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import train as script
import training.resume
from config import CONFIGS
from config.networks import (
    DANetConfig,
    DCSFNConfig,
    JDNetConfig,
    NetworkConfig,
    PReNetConfig,
    RESCANConfig,
)
from config.schema import Camera, Config, Folders, Precision, Synthetic
from models import JDNet
from tools.check_gpu import GOLDEN_LOSSES
from train import train
from training import losses
from training.dry_run import plan
from training.interruption import Interruption
from training.resume import resumed
from training.run import Run, build_run, take_step
from training.schedule import learning_rate
from utils import checkpoint
from utils.errors import Interrupted, UserError
from utils.image import Pixels, read_image, write_image
from utils.runlog import RunLog


def weights_of(config: Config) -> dict[str, Tensor]:
    assert config.run is not None
    return checkpoint.load_weights(config.run / "best.pt").state


def log_of(config: Config, event: str) -> list[dict[str, Any]]:
    assert config.run is not None
    lines = (config.run / "log.jsonl").read_text().splitlines()
    return [entry for line in lines if (entry := json.loads(line))["event"] == event]


def assert_identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def with_training(config: Config, **changes: Any) -> Config:
    return replace(config, training=replace(config.training, **changes))


def test_a_run_writes_all_its_files(tiny: Config, capsys: pytest.CaptureFixture[str]) -> None:
    scores = train(tiny)
    assert tiny.run is not None
    for name in ("config.json", "log.jsonl", "latest.pt", "best.pt", "scores.csv", "scores.json"):
        assert (tiny.run / name).stat().st_size > 0, name
    assert len(list((tiny.run / "strips").glob("*.png"))) == 2
    assert len(list((tiny.run / "tensorboard").iterdir())) == 1
    assert not list(tiny.run.glob("*.partial"))

    assert [entry["step"] for entry in log_of(tiny, "step")] == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in log_of(tiny, "eval")] == [3, 6]
    (start,) = log_of(tiny, "start")
    assert start["config"]["training"]["steps"] == 6
    assert {"commit", "torch", "command"} <= start["provenance"].keys()

    shown = capsys.readouterr().out
    assert "rainy input" in shown
    assert f"{scores.mean('y', 'psnr'):.2f}" in shown
    assert str(tiny.run / "best.pt") in shown
    assert json.loads((tiny.run / "scores.json").read_text())["mean"]["y"]["psnr"] == pytest.approx(
        scores.mean("y", "psnr")
    )


def test_resume_is_bit_exact(tiny: Config, tmp_path: Path) -> None:
    train(tiny)

    broken = replace(tiny, run=tmp_path / "broken")
    train_until(broken, 4)
    assert not (tmp_path / "broken" / "scores.csv").exists()
    train(broken)

    assert_identical(weights_of(tiny), weights_of(broken))
    assert log_of(tiny, "step") == log_of(broken, "step")
    assert [entry["step"] for entry in log_of(broken, "start")] == [0, 4]


@pytest.fixture
def muon(tiny: Config, rain100_folder: Path) -> Config:
    """The recipe of the small presets on three pairs with additive rain."""
    preset = CONFIGS["rain100l-small"]
    for clean in rain100_folder.glob("norain-*.png"):
        pixels = read_image(clean) // 2
        write_image(clean, pixels)
        pixels[::3] += 60
        write_image(clean.with_name(clean.name.removeprefix("no")), pixels)
    recipe = replace(
        preset.training,
        steps=12,
        batch_size=2,
        patch_size=16,
        warmup=2,
        cooldown=0.5,
        weight_decay=0.1,
    )
    data = Folders("mine", rain100_folder, rain100_folder)
    return replace(tiny, data=data, rain=preset.rain, training=recipe)


def train_until(config: Config, step: int) -> None:
    """Train, and fail right after the state of this step is saved."""
    save = training.resume.save_state

    def save_and_stop(run: Run, done: int) -> None:
        save(run, done)
        if done == step:
            pytest.fail("interrupted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "save_state", save_and_stop)
        with pytest.raises(pytest.fail.Exception):
            train(config)


def test_muon_exchange_and_ema_resume_bit_exact(muon: Config, tmp_path: Path) -> None:
    muon = with_training(muon, ema=0.9)
    train(muon)
    broken = replace(muon, run=tmp_path / "broken")
    train_until(broken, 5)
    train(replace(broken, machine=replace(broken.machine, threads=1), workers=1))
    assert_identical(weights_of(muon), weights_of(broken))
    assert log_of(muon, "step") == log_of(broken, "step")
    assert log_of(muon, "step")[0]["1-ssim+l1"] > 0


def test_the_moving_average_is_saved(muon: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []

    def step_and_record(run: Run, *rest: Any) -> tuple[Tensor, Tensor]:
        loss = take_step(run, *rest)
        states.append({key: value.clone() for key, value in run.network.state_dict().items()})
        return loss

    monkeypatch.setattr(script, "take_step", step_and_record)
    train(with_training(muon, ema=0.75, steps=3))
    for key, saved in weights_of(muon).items():
        if saved.is_floating_point():  # weights, and the statistics of BatchNorm
            first, second, third = (state[key] for state in states)
            expected = 0.75**2 * first + 0.75 * 0.25 * second + 0.25 * third
            assert torch.allclose(saved, expected, atol=1e-6), key
    assert not torch.equal(weights_of(muon)["tail.weight"], states[-1]["tail.weight"])


@pytest.mark.slow
def test_length_can_change_before_the_cooldown(muon: Config, tmp_path: Path) -> None:
    train(muon)  # 12 steps, constant learning rate up to step 6
    longer = with_training(replace(muon, run=tmp_path / "longer"), steps=1000)
    train_until(longer, 6)
    cooled = with_training(longer, steps=12)
    train(cooled)
    assert_identical(weights_of(muon), weights_of(cooled))

    with pytest.raises(UserError, match=r"training.steps 12, now 1000"):
        train(longer)  # its cooldown is over
    late = with_training(replace(longer, run=tmp_path / "late"), steps=1000)
    train_until(late, 8)
    with pytest.raises(UserError, match=r"training.steps 1000, now 12"):
        train(with_training(late, steps=12))  # step 7 would have had a lower rate
    with pytest.raises(UserError, match=r"training.lr 0.002, now 0.003"):
        train(with_training(late, lr=0.003))


def test_shortened_to_the_steps_already_done(muon: Config) -> None:
    """The weights are those of the last step, also if none or earlier ones were saved."""
    assert muon.run is not None
    longer = with_training(muon, steps=1000, cooldown=0)
    for step in (2, 5):  # the second is after the evaluation of step 3
        train_until(longer, step)
        train(with_training(longer, steps=step))
        metadata = checkpoint.load_weights(muon.run / "best.pt").metadata
        assert metadata["step"] == step
        state = checkpoint.load(muon.run / "latest.pt")
        assert_identical(weights_of(muon), state["network"])


def test_best_weights_are_never_those_of_a_lost_step(tiny: Config) -> None:
    """The resume state is saved with them, even if it is not due."""
    monitoring = replace(tiny.monitoring, save_minutes=5)
    config = replace(with_training(tiny, validation=2), monitoring=monitoring)
    train_until(config, 3)
    assert config.run is not None
    assert checkpoint.load_weights(config.run / "best.pt").metadata["step"] == 3
    assert checkpoint.load(config.run / "latest.pt")["step"] == 3
    (config.run / "best.pt").unlink()
    train(config)
    assert checkpoint.load_weights(config.run / "best.pt").metadata["step"] == 6


def test_a_full_disk_stops_the_log_with_one_line(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = build_run(tiny)
    with resumed(run):
        monkeypatch.setattr(run.log.board, "write_event", fail)
        for _ in range(20):  # more than the queue of tensorboardX holds
            with pytest.raises(UserError, match=r"tensorboard: No space left"):
                run.log.event("step", 1, loss=0.5)


def test_regrouped_layers_are_other_data(muon: Config, tmp_path: Path) -> None:
    """All folders of layers are equally likely."""
    for number in range(2):
        grey = np.full((20, 20, 3), 50 + number, np.uint8)
        for folder in (f"one{number}", "both"):
            write_image(tmp_path / folder / f"{number}.png", grey)
    assert isinstance(muon.data, Folders)
    apart = (tmp_path / "one0", tmp_path / "one1")
    config = replace(muon, data=replace(muon.data, layers=apart))
    train(config)
    train(config)
    together = replace(muon.data, layers=(tmp_path / "both",))
    with pytest.raises(UserError, match=r"layer_sources"):
        train(replace(config, data=together))


def test_a_finished_run_only_prints_its_table(
    tiny: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny)
    before, table = weights_of(tiny), capsys.readouterr().out.split("synthetic, light rain")[1]
    train(tiny)
    assert_identical(before, weights_of(tiny))
    assert capsys.readouterr().out.split("synthetic, light rain")[1] == table


def test_sigterm_saves_and_names_the_command_that_resumes(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny)
    monitoring = replace(tiny.monitoring, save_minutes=5)
    broken = replace(tiny, run=tmp_path / "broken", monitoring=monitoring)

    def terminate(*arguments: Any) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return learning_rate(*arguments)

    monkeypatch.setattr(script, "learning_rate", terminate)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"SIGTERM .*step 1 of 6.*: python ") as stop:
        train(broken)
    assert stop.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == handler
    monkeypatch.undo()
    train(broken)
    assert_identical(weights_of(tiny), weights_of(broken))


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_two_runs_in_one_folder(tiny: Config) -> None:
    with (
        resumed(build_run(tiny)),
        pytest.raises(UserError, match=r"run: .*--run"),
    ):
        train(tiny)
    train(tiny)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_state_is_refused_and_the_one_before_offered(
    tiny: Config, tmp_path: Path, damage: str
) -> None:
    train(tiny)
    broken = replace(tiny, run=tmp_path / "broken")
    train_until(broken, 4)
    latest = tmp_path / "broken" / "latest.pt"
    content = bytearray(latest.read_bytes())
    if damage == "truncated":
        del content[-1000:]
    else:
        bias = checkpoint.load(latest)["network"]["head.bias"].numpy().tobytes()
        content[content.index(bias)] ^= 1
    latest.write_bytes(content)
    with pytest.raises(UserError, match=r"latest.pt.*previous.pt, step 3"):
        train(broken)
    latest.unlink()
    train(broken)
    assert_identical(weights_of(tiny), weights_of(broken))
    assert [entry["step"] for entry in log_of(broken, "start")] == [0, 3]

    content = bytearray((tmp_path / "broken" / "previous.pt").read_bytes())
    (tmp_path / "broken" / "previous.pt").write_bytes(content[:99])
    latest.write_bytes(content[:99])
    with pytest.raises(UserError, match=r"latest.pt") as error:
        train(broken)
    assert "resume from" not in str(error.value)


def test_a_folder_that_cannot_be_written(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: Not a directory"):
        train(replace(tiny, run=tmp_path / "file" / "run"))


def test_half_written_files_are_removed(tiny: Config) -> None:
    assert tiny.run is not None
    tiny.run.mkdir()
    (tiny.run / "latest.pt.99.partial").write_bytes(b"half")
    train(tiny)
    assert not list(tiny.run.glob("*.partial"))


def test_workers_do_not_change_the_weights(tiny: Config, tmp_path: Path) -> None:
    train(tiny)
    two = replace(tiny, workers=2, run=tmp_path / "two")
    train(two)
    assert_identical(weights_of(tiny), weights_of(two))


def test_accumulation_equals_a_large_batch(tiny: Config, tmp_path: Path) -> None:
    """Without batch normalisation, whose statistics are per forward pass."""
    plain = replace(tiny, network=JDNetConfig(units=1, channels=16, scales=2, self_attention=False))
    whole = with_training(plain, batch_size=4, steps=3)
    parts = replace(with_training(whole, batch_size=2, accumulate=2), run=tmp_path / "parts")
    train(whole)
    train(parts)
    for a, b in zip(weights_of(whole).values(), weights_of(parts).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_golden_first_losses(tmp_path: Path) -> None:
    """The first 20 losses of `python train.py`. A change here changes all published results."""
    config = CONFIGS["synthetic"]
    config = replace(
        config,
        monitoring=replace(config.monitoring, log_every=1),
        machine=replace(config.machine, device="cpu"),
        run=tmp_path,
    )
    losses: list[float] = []

    def stop_after_20(*arguments: Any, **values: Any) -> None:
        if arguments[1] == "step":
            losses.append(values["1-ssim"])
        if len(losses) == 20:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "event", stop_after_20)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    golden = json.loads(GOLDEN_LOSSES.read_text())  # 1 - SSIM
    # The number of threads changes the summation order; the difference doubles every two steps.
    assert losses[:10] == pytest.approx(golden[:10], rel=1e-3)
    assert losses[10:] == pytest.approx(golden[10:], rel=5e-2)


def test_bfloat16_trains(tiny: Config, tmp_path: Path) -> None:
    machine = replace(tiny.machine, precision="bfloat16")
    half = replace(tiny, machine=machine, run=tmp_path / "half")
    train(tiny)
    train(half)
    losses = [[entry["1-ssim"] for entry in log_of(run, "step")] for run in (tiny, half)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.2)


def test_a_run_keeps_the_precision_that_auto_chose(
    tiny: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also on another machine; the result is that of the precision given by name."""

    def machine(precision: Precision, folder: str) -> Config:
        return replace(
            tiny, machine=replace(tiny.machine, precision=precision), run=tmp_path / folder
        )

    train(machine("bfloat16", "named"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    auto = machine("auto", "auto")
    train_until(auto, 4)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    capsys.readouterr()
    assert "bfloat16 on cpu" in plan(auto)
    train(auto)
    assert "parameters on cpu in bfloat16" in capsys.readouterr().out
    assert_identical(weights_of(auto), weights_of(machine("bfloat16", "named")))
    assert log_of(auto, "start")[1]["config"]["machine"]["precision"] == "bfloat16"
    with pytest.raises(UserError, match="precision bfloat16, now float32"):
        train(machine("float32", "auto"))
    slow = machine("auto", "slow")
    train_until(slow, 4)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    train(slow)
    train(tiny)
    assert_identical(weights_of(slow), weights_of(tiny))


@pytest.mark.parametrize("loss", ["mae", "mse"])
def test_other_losses_train_and_are_logged_by_name(tiny: Config, loss: str) -> None:
    train(with_training(tiny, loss=loss))
    assert all(0 < entry[loss] < 1 for entry in log_of(tiny, "step"))


SIBLINGS: dict[str, tuple[NetworkConfig, dict[str, Any]]] = {
    "dcsfn": (DCSFNConfig(units=1, channels=4), {"augment": "jitter"}),
    "danet": (DANetConfig(channels=16, blocks=1), {"loss": "danet", "augment": "eight"}),
    "prenet": (PReNetConfig(stages=2, channels=4), {"augment": "flip"}),
    "rescan": (RESCANConfig(stages=2, channels=4), {"loss": "mse-stages"}),
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_siblings_train_and_score(tiny: Config, name: str) -> None:
    network, recipe = SIBLINGS[name]
    config = with_training(replace(tiny, network=network), **recipe)
    assert train(config).pairs == 2
    assert config.run is not None
    assert checkpoint.load_weights(config.run / "best.pt").network == name


def test_validation_pairs_select_the_weights(tiny: Config) -> None:
    config = with_training(tiny, validation=2, steps=9)
    config = replace(config, monitoring=replace(config.monitoring, eval_pairs=1))
    train(config)
    (start,) = log_of(config, "start")
    assert len(start["data_sha256"]) == 64
    scored = [entry["psnr_y"] for entry in log_of(config, "eval")]
    assert config.run is not None
    metadata = checkpoint.load_weights(config.run / "best.pt").metadata
    assert metadata["validation_psnr_y"] == max(scored)
    monitoring = replace(config.monitoring, eval_every=1)
    with pytest.raises(UserError, match=r"eval_every 3, now 1"):
        train(replace(config, monitoring=monitoring))
    with pytest.raises(UserError, match=r"--validation .* 6, got 6"):
        train(with_training(tiny, validation=6))


def test_training_without_a_test_set(
    tiny: Config, rain100_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says at the start and at the end that nothing is scored; best.pt is the last state."""
    assert tiny.run is not None
    config = replace(tiny, data=Folders("mine", rain100_folder, None))
    assert train(config).pairs == 0
    assert capsys.readouterr().out.count("no test set") == 2
    assert not log_of(config, "eval")
    assert not (tiny.run / "scores.csv").exists()
    state = checkpoint.load(tiny.run / "latest.pt")
    assert_identical(weights_of(config), state["network"])
    assert checkpoint.load_weights(tiny.run / "best.pt").metadata["validation_psnr_y"] is None
    validated = replace(with_training(config, validation=1), run=tiny.run.with_name("validated"))
    assert train(validated).pairs == 0
    assert len(log_of(validated, "eval")) == 2


def test_nothing_is_chosen_on_the_test_set(tiny: Config) -> None:
    train(tiny)
    assert tiny.run is not None
    assert checkpoint.load_weights(tiny.run / "best.pt").metadata["step"] == 6


@pytest.mark.slow
def test_init_from_weights(
    tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny)
    assert tiny.run is not None
    first = tiny.run / "best.pt"
    still = replace(with_training(tiny, lr=1e-12), init_from=first, run=tmp_path / "second")
    psnr = train(still).mean("y", "psnr")
    for key, value in weights_of(still).items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(value, weights_of(tiny)[key], rtol=0, atol=1e-9)
    network = JDNetConfig(units=3, channels=16, scales=2)
    grown = replace(still, network=network, run=tmp_path / "grown")
    assert train(grown).mean("y", "psnr") == pytest.approx(psnr, abs=1e-3)
    (start,) = log_of(still, "start")
    assert start["init_sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=r"init_sha256"):
        train(replace(still, init_from=None))
    wider = replace(
        still, network=JDNetConfig(units=1, channels=32, scales=2), run=tmp_path / "third"
    )
    with pytest.raises(UserError, match=r"best.pt .*JDNet"):
        train(wider)
    assert not (tmp_path / "third").exists()
    with pytest.raises(UserError, match=r"--init-from .*best.pt"):
        train(replace(tiny, init_from=first))
    capsys.readouterr()
    other = JDNetConfig(units=1, channels=16, scales=2, pooling=2, position="patch")
    train(replace(still, network=other, run=tmp_path / "other"))
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert [note.partition("best.pt has ")[2] for note in notes] == [
        "pooling 4, this run has pooling 2",
        "position image, this run has position patch",
    ]


def test_an_exploding_loss_names_the_step_and_keeps_the_state(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def explode(stages: tuple[Tensor, ...], clean: Tensor) -> Tensor:
        calls.append(0)
        return (stages[-1] - clean).mean() * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setitem(losses.LOSSES, "ssim", explode)
    message = r"nan.* step 3: .*latest.pt.*--lr"
    with pytest.raises(UserError, match=message):
        train(tiny)
    assert tiny.run is not None
    state = checkpoint.load(tiny.run / "latest.pt")
    assert state["step"] == 3
    assert all(t.isfinite().all() for t in state["network"].values())

    calls[:] = [0] * 3
    monitoring = replace(tiny.monitoring, save_minutes=5)
    with pytest.raises(UserError, match=r"step 0: no state"):
        train(replace(tiny, monitoring=monitoring, run=tiny.run.with_name("other")))


def test_a_run_of_version_1_0_0_resumes(tiny: Config) -> None:
    assert tiny.run is not None
    train_until(tiny, 4)
    state = checkpoint.load(tiny.run / "latest.pt")
    settings = json.loads(state["settings"])
    del settings["training.ema"], settings["rain.bright"], state["average"]
    checkpoint.save(tiny.run / "latest.pt", {**state, "settings": json.dumps(settings)})
    train(tiny)
    assert [entry["step"] for entry in log_of(tiny, "start")] == [0, 4]


def test_resuming_with_other_settings_is_refused(tiny: Config) -> None:
    train(tiny)
    with pytest.raises(UserError, match=r"training.lr 0.002, now 0.5"):
        train(with_training(tiny, lr=0.5))
    data = Synthetic(train_pairs=6, test_pairs=2, image_size=32, heaviness="heavy")
    with pytest.raises(UserError, match=r"data_sha256 "):
        train(replace(tiny, data=data))
    with pytest.raises(UserError, match=r"training.optimizer adam, now muon"):
        train(with_training(tiny, optimizer="muon"))
    with pytest.raises(UserError, match=r"camera.noise 0.0, now 2.5"):
        train(replace(tiny, camera=Camera(noise=2.5)))
    train(replace(tiny, monitoring=replace(tiny.monitoring, eval_every=1)))  # still allowed


def test_data_errors_create_no_run_folder(
    tiny: Config, tmp_path: Path, picture: Callable[..., Pixels], rain100_folder: Path
) -> None:
    assert tiny.run is not None
    folders = replace(tiny, data=Folders("mine", tmp_path / "nowhere", rain100_folder))
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        train(folders)
    with pytest.raises(UserError, match=r"--train-folder"):
        train(replace(tiny, data=CONFIGS["rain12"].data))
    large = with_training(
        replace(tiny, data=Folders("mine", rain100_folder, rain100_folder)), patch_size=25
    )
    with pytest.raises(UserError, match=r"25x25 .*rain-1 .*32x24.*--patch-size"):
        train(large)
    write_image(rain100_folder / "rain-1.png", picture(8, 8))
    with pytest.raises(UserError, match=r"rain-1.png .*8x8"):
        train(large)
    write_image(rain100_folder / "norain-1.png", picture(8, 8))
    with pytest.raises(UserError, match=r"rain-1: .*11x11"):
        train(with_training(large, patch_size=8))
    assert not tiny.run.exists()


def test_dry_run_prints_the_plan_and_trains_nothing(
    tiny: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.run is not None
    flags = ["--train-pairs", "6", "--image-size", "32", "--patch-size", "16", "--units", "1"]
    recipe = ["--passes", "10", "--steps", "None", "--batch-size", "3", "--schedule", "multistep"]
    script.main([*flags, *recipe, "--dry-run", "--run", str(tiny.run)])
    shown = capsys.readouterr().out
    assert "6 pairs for training, 0 validation and 8 test pairs" in shown
    assert "21 steps" in shown  # 10 * 6 / 3 + 1, as in the released loop
    assert "0.002, times 0.1 at 12, 16" in shown
    parameters = sum(p.numel() for p in JDNet(JDNetConfig(units=1)).parameters())
    assert f"{parameters:,} parameters" in shown
    assert not tiny.run.exists()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_data_parallel(tiny: Config) -> None:
    train(replace(tiny, machine=replace(tiny.machine, device="auto")))
    assert tiny.run is not None
    assert "head.weight" in checkpoint.load(tiny.run / "best.pt")["state_dict"]
