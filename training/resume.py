"""The files of a run: its lock, its resume state and its weights.

To resume a run, repeat its command. Patches and learning rate depend only on the step, so the state
is that of the network, of the optimizer and of the moving average, if there is one.
"""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from torch import nn

from config.schema import Config, Precision, as_dict
from training.run import Run, folder_of
from training.schedule import LENGTH, same_so_far
from utils import checkpoint, ranks
from utils.errors import UserError
from utils.files import writing
from utils.runlog import RunLog
from utils.runtime import choose_device, name_precision


def settled(config: Config) -> Config:
    """Replace the precision `auto`, by that of the run to resume, else by the best for the device.

    So a run keeps its precision on another machine. All ranks take the choice of the first one.

    Raises:
        UserError: the resume state is damaged, or the device is not available.
    """
    machine = config.machine
    if machine.precision != "auto":
        return config

    def choose() -> str:
        state = read_state(folder_of(config)) or {}
        stored = json.loads(state.get("settings", "{}")).get("precision", "auto")
        return name_precision(stored, choose_device(ranks.local_device(machine.device)))

    precision = cast(Precision, ranks.from_main(choose))
    return replace(config, machine=replace(machine, precision=precision))


@contextmanager
def resumed(run: Run) -> Iterator[None]:
    """Lock the folder of a run, load its resume state if there is one, and open its log.

    Raises:
        UserError: the ranks differ in data or settings, or the folder contains a run with other
            settings, another process that trains, or a damaged resume state.
    """
    settings = settings_of(run)
    ranks.agree(settings, "data or settings")
    with _locked(run.folder):
        if state := ranks.from_main(partial(read_state, run.folder)):
            _load(run, state, settings)
        with closing(RunLog(run.folder, run.first)) as run.log:
            yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a run folder, creating it; delete what a killed process left half written.

    The operating system releases the lock of a process that dies.
    """
    lock = FileLock(folder / "lock", timeout=0)

    def acquire() -> None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                raise UserError(
                    f"another process is training in {folder}: wait for it, or choose another --run"
                ) from None
            except NotImplementedError:
                raise UserError(
                    f"the drive of {folder} cannot lock files: choose another --run"
                ) from None
            for half_written in folder.glob("*.partial"):
                half_written.unlink()

    ranks.from_main(acquire)
    try:
        yield
    finally:
        lock.release()


def settings_of(run: Run) -> dict[str, Any]:
    """Everything that affects the weights; a run is resumed only with the same settings."""
    config, sections = run.config, as_dict(run.config)
    settings = {
        f"{section}.{name}": value
        for section in ("rain", "camera", "network", "training")
        for name, value in sections[section].items()
    }
    return settings | {
        "precision": config.machine.precision,
        "batch_norm_replicas": batch_norm_replicas(run.model),
        "data_sha256": run.origin["data_sha256"],
        # Layers of all sources are equally likely, so their grouping matters.
        "layer_sources": [
            [len(source.images), source.rendered] for source in run.data.patches.sources
        ],
        "init_sha256": run.origin["init_sha256"],
        # With validation, best.pt is selected among the evaluated steps.
        "eval_every": config.monitoring.eval_every if run.data.validation else None,
    }


def batch_norm_replicas(model: nn.Module) -> int:
    """Number of parts of a batch that BatchNorm sees separately: DataParallel splits it by GPU."""
    uses_it = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    return len(model.device_ids) if uses_it and isinstance(model, nn.DataParallel) else 1


def read_state(folder: Path) -> dict[str, Any] | None:
    """The last resume state of a run; None if there is none."""
    latest, previous = folder / "latest.pt", folder / "previous.pt"
    if not latest.exists():
        return checkpoint.load(previous) if previous.exists() else None
    try:
        return checkpoint.load(latest)
    except UserError as error:
        try:
            step = checkpoint.load(previous)["step"]
        except (UserError, KeyError):
            raise error from None
        raise UserError(f"{error}: delete it to resume from {previous}, step {step}") from None


def _load(run: Run, state: dict[str, Any], settings: dict[str, Any]) -> None:
    """Load a resume state into a run.

    The length of a run may change if the learning rates of all steps so far stay the same.

    Raises:
        UserError: it is of another run.
    """
    path = run.folder / "latest.pt"
    # Version 1.0.0 had neither the moving average nor lightened scenes.
    saved = {"training.ema": 0.0, "rain.bright": 0.0, **json.loads(state.get("settings", "{}"))}
    if saved.keys() != settings.keys():
        raise UserError(f"{path} is not a resume state of this version: choose another --run")
    may_differ: set[str] = set()
    scenes = run.data.patches.scenes
    if same_so_far(_recipe(saved), _recipe(settings), state["step"], scenes):
        may_differ = {f"training.{name}" for name in LENGTH}
    for key, now in settings.items():
        if saved[key] != now and key not in may_differ:
            raise UserError(
                f"{run.folder} contains a run with other settings ({key} {saved[key]}, now {now}): "
                "repeat its command to resume it, or choose another --run"
            )
    checkpoint.load_state(run.network, state["network"], path)
    run.optimizer.load_state_dict(state["optimizer"])
    if run.average is not None:
        run.average.load_state_dict(state["average"])
    run.first, run.best = state["step"], state["best"]


def _recipe(settings: dict[str, Any]) -> dict[str, Any]:
    section = "training."
    return {k.removeprefix(section): v for k, v in settings.items() if k.startswith(section)}


@ranks.main_only
def save_state(run: Run, done: int) -> None:
    """Write latest.pt; the one before becomes previous.pt."""
    state = {
        "settings": json.dumps(settings_of(run)),
        "step": done,
        "best": run.best,
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "average": run.average and run.average.state_dict(),
    }
    checkpoint.save(run.folder / "latest.pt", state, previous=run.folder / "previous.pt")


@ranks.main_only
def save_weights(run: Run, done: int) -> None:
    """Write best.pt: the weights, the arguments of the network, and provenance."""
    about = {"step": done, "validation_psnr_y": run.best if run.monitored else None}
    weights = checkpoint.Weights(
        run.result.state_dict(),
        run.config.network.name,
        asdict(run.config.network),
        run.origin | about,
    )
    checkpoint.save_weights(run.folder / "best.pt", weights)
