"""A training run: its parts, its files, and resuming it."""

import hashlib
import json
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.utils.data import DataLoader

from config.schema import Config, Training, as_dict
from data.open import TrainingData, open_training
from data.pairs import Pairs
from data.patches import PatchPair
from models import NETWORKS, Network, place
from models.load import grow
from training.losses import Loss, make_loss
from training.optimizers import make_optimizer
from training.schedule import LENGTH, same_so_far, total_steps
from utils import checkpoint, ranks
from utils.errors import UserError
from utils.files import writing
from utils.metrics import WINDOW
from utils.runlog import RunLog
from utils.runtime import autocast, choose_device, choose_precision, provenance

# Old names of settings -> current names.
RENAMED = {"training.held_out": "training.validation", "start_sha256": "init_sha256"}


class SupervisedOutputs(nn.Module):
    """Wraps a network so that forward() returns all supervised outputs in a precision.

    DataParallel parallelises only forward(), in threads that do not inherit autocast.
    """

    def __init__(self, network: Network, precision: torch.dtype) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the outputs of `network.stages`."""
        with autocast(rainy.device, self.precision):
            return self.network.stages(rainy)


@dataclass
class Run:
    """The parts of a run. Only `best` is reassigned during training."""

    config: Config
    folder: Path
    device: torch.device
    precision: torch.dtype
    data: TrainingData
    network: Network
    model: nn.Module  # `network` with all supervised outputs, on all GPUs or ranks
    optimizer: torch.optim.Optimizer
    loss: Loss
    settings: dict[str, Any]  # everything that affects the weights
    origin: dict[str, Any]  # config, hashes and provenance, stored with weights, scores and log
    first: int  # steps done before this process
    steps: int
    best: float  # PSNR of the best validation so far, dB
    log: RunLog

    @property
    def monitored(self) -> Pairs:
        """Pairs scored during training: validation pairs, or a few test pairs if there are none."""
        return self.data.validation or self.data.test[: self.config.monitoring.eval_pairs]


@contextmanager
def open_run(config: Config) -> Iterator[Run]:
    """Build a run, and lock its folder; resume the run if its folder contains a resume state.

    Raises:
        UserError: the data or the initial weights cannot be used, the batch cannot be divided
            among the processes, or the folder contains a run with other settings, another process
            that trains, or a damaged resume state.
    """
    recipe = config.training
    ranks.share_of_batch(recipe.batch_size)
    folder = config.run or Path("runs") / config.name
    if config.init_from and config.init_from.resolve().parent == folder.resolve():
        raise UserError(
            f"--init-from {config.init_from} would be overwritten: copy it elsewhere, or choose "
            "another --run"
        )
    device = choose_device(ranks.local_device(config.machine.device))
    precision = choose_precision(config.machine.precision, device)
    data = open_data(config)
    scenes = data.patches.scenes
    network = build_network(config, device)
    gpus = torch.cuda.device_count() if device == torch.device("cuda") else 1
    settings = _settings(config, data, _batch_norm_replicas(network, gpus))
    ranks.agree(settings, "data or settings")
    with _locked(folder):
        optimizer = make_optimizer(recipe, network)
        first, best = _resume(folder, settings, network, optimizer, scenes)
        model = ranks.parallel(SupervisedOutputs(network, precision), device)
        if gpus > 1:
            model = nn.DataParallel(model)
        origin = {
            "config": as_dict(config),
            "data_sha256": settings["data_sha256"],
            "init_sha256": settings["init_sha256"],
            "provenance": provenance(device),
        }
        log = RunLog(folder, first)
        run = Run(
            config=config,
            folder=folder,
            device=device,
            precision=precision,
            data=data,
            network=network,
            model=model.train(),
            optimizer=optimizer,
            loss=make_loss(recipe),
            settings=settings,
            origin=origin,
            first=first,
            steps=total_steps(recipe, scenes),
            best=best,
            log=log,
        )
        try:
            yield run
        finally:
            log.close()


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
            for half_written in folder.glob("*.partial"):
                half_written.unlink()

    ranks.from_main(acquire)
    try:
        yield
    finally:
        lock.release()


def _batch_norm_replicas(network: nn.Module, gpus: int) -> int:
    """Number of parts of a batch that BatchNorm sees separately: DataParallel splits it by GPU."""
    uses_it = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    return gpus if uses_it else 1


def open_data(config: Config) -> TrainingData:
    """Open the images of a run and check that the scored ones are large enough.

    Raises:
        UserError: the data cannot be used.
    """
    data = open_training(config)
    for pair in (*data.test, *data.validation):  # fail now, not after the training
        if min(pair.clean.shape[:2]) < WINDOW:
            raise UserError(
                f"cannot score {pair.name}: it is smaller than {WINDOW}x{WINDOW} pixels"
            )
    return data


def build_network(config: Config, device: torch.device) -> Network:
    """Build the network with its initial weights.

    Raises:
        UserError: the initial weights do not fit.
    """
    torch.manual_seed(config.training.seed)
    network = NETWORKS[config.network.name](**asdict(config.network))
    if config.init_from:
        weights = checkpoint.load_weights(config.init_from)
        checkpoint.load_state(network, grow(network, weights.state), config.init_from)
        for key, now in asdict(config.network).items():
            if key != "units" and (then := weights.arguments.get(key, now)) != now:
                _note(f"{config.init_from} has {key} {then}, this run has {key} {now}")
    return place(network, device)


@ranks.main_only
def _note(text: str) -> None:
    print(f"note: {text}")


def batches(run: Run) -> Iterator[PatchPair]:
    """Iterate over the batches of all remaining steps, [B, 3, P, P].

    Batch k contains the same patches for every number of processes; each takes its share.
    """
    recipe = run.config.training
    share, size = ranks.share_of_batch(recipe.batch_size), recipe.batch_size
    todo = range(run.first * recipe.accumulate, run.steps * recipe.accumulate)
    loader = DataLoader(
        run.data.patches,
        batch_sampler=([k * size + position for position in share] for k in todo),
        num_workers=run.config.workers,
        pin_memory=run.device.type == "cuda",
        worker_init_fn=_ignore_interrupts,
    )
    return iter(loader)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C and SIGTERM may reach all processes; a worker serves until the main process ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _settings(config: Config, data: TrainingData, replicas: int) -> dict[str, Any]:
    """Everything that affects the weights; a run is resumed only with the same settings."""
    pixels = hashlib.sha256()
    for pair in (*data.patches.pairs, *data.validation):
        pixels.update(pair.rainy.tobytes())
        pixels.update(pair.clean.tobytes())
    # The first source contains the layers of the pairs, which are already hashed.
    layers = [image for source in data.patches.exchange.sources[1:] for image in source.images]
    for image in (*data.patches.clean_scenes, *layers):
        pixels.update(image.tobytes())
    settings = as_dict(config)
    return {
        **{f"network.{k}": v for k, v in settings["network"].items()},
        **{f"training.{k}": v for k, v in settings["training"].items()},
        "precision": config.machine.precision,
        "batch_norm_replicas": replicas,
        "data_sha256": pixels.hexdigest(),
        # Layers of all sources are equally likely, so their grouping matters.
        "layer_sources": [
            [len(source.images), source.rendered] for source in data.patches.exchange.sources
        ],
        "init_sha256": config.init_from
        and hashlib.sha256(config.init_from.read_bytes()).hexdigest(),
        # With validation, best.pt is selected among the evaluated steps.
        "eval_every": config.monitoring.eval_every if data.validation else None,
    }


def _resume(
    folder: Path,
    settings: dict[str, Any],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scenes: int,
) -> tuple[int, float]:
    """Load the resume state if there is one; return the steps done and the best PSNR so far.

    The length of a run may change if the learning rates of all steps so far stay the same.

    Raises:
        UserError: the folder contains another run, or a damaged resume state.
    """
    state = ranks.from_main(partial(read_state, folder))
    if state is None:
        return 0, -math.inf
    path = folder / "latest.pt"
    if "settings" not in state:
        raise UserError(f"{path} is not a resume state of train.py: choose another --run")
    saved = {RENAMED.get(key, key): value for key, value in json.loads(state["settings"]).items()}
    # A setting that the saved run does not know has its default.
    defaults = {f"training.{key}": value for key, value in as_dict(Training()).items()}
    then = {**settings, **defaults, **saved}
    may_differ: set[str] = set()
    if same_so_far(_recipe(then), _recipe(settings), state["step"], scenes):
        may_differ = {f"training.{name}" for name in LENGTH}
    for key, now in settings.items():
        if then[key] != now and key not in may_differ:
            raise UserError(
                f"{folder} contains a run with other settings ({key} {then[key]}, now {now}): "
                "repeat its command to resume it, or choose another --run"
            )
    checkpoint.load_state(network, state["network"], path)
    for group, own in zip(state["optimizer"]["param_groups"], optimizer.param_groups, strict=True):
        if "fused" in own:  # how Adam is computed, not what; older runs looped in Python
            group["fused"] = own["fused"]
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["best"]


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


def _recipe(settings: dict[str, Any]) -> dict[str, Any]:
    section = "training."
    return {k.removeprefix(section): v for k, v in settings.items() if k.startswith(section)}


@ranks.main_only
def save_state(run: Run, done: int) -> None:
    """Write latest.pt; the one before becomes previous.pt.

    Patches and learning rate depend only on the step and need no state.
    """
    state = {
        "settings": json.dumps(run.settings),
        "step": done,
        "best": run.best,
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
    }
    checkpoint.save(run.folder / "latest.pt", state, previous=run.folder / "previous.pt")


@ranks.main_only
def save_weights(run: Run, done: int) -> None:
    """Write best.pt: the weights, the arguments of the network, and provenance."""
    weights = checkpoint.Weights(
        run.network.state_dict(),
        run.config.network.name,
        asdict(run.config.network),
        {**run.origin, "step": done, "validation_psnr_y": run.best},
    )
    checkpoint.save_weights(run.folder / "best.pt", weights)
