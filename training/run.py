"""A training run: its parts, its files, and resuming it."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from config.schema import Config, Training, as_dict
from data.open import TrainingData, open_training
from data.pairs import Pairs
from data.patches import PatchPair
from models import NETWORKS, Network
from models.load import grow, load_weights, rename
from training.losses import Loss, make_loss
from training.optimizers import make_optimizer
from training.schedule import LENGTH, patches_per_step, same_so_far, total_steps
from utils import checkpoint
from utils.errors import UserError
from utils.metrics import WINDOW
from utils.runlog import RunLog
from utils.runtime import choose_device, provenance

# Old names of settings -> current names.
RENAMED = {"training.held_out": "training.validation", "start_sha256": "init_sha256"}


class SupervisedOutputs(nn.Module):
    """Wraps a network so that forward() returns all supervised outputs.

    DataParallel parallelises only forward().
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the outputs of `network.stages`."""
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
    model: nn.Module  # `network` with all supervised outputs, on all GPUs
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


def open_run(config: Config) -> Run:
    """Build a run; resume it if its folder contains a resume state.

    Raises:
        UserError: the data or the initial weights cannot be used, or the folder contains a run with
            other settings.
    """
    recipe = config.training
    folder = config.run or Path("runs") / config.name
    device = choose_device(config.machine.device)
    data = open_data(config)
    scenes = data.patches.scenes
    network = build_network(config, device)
    optimizer = make_optimizer(recipe, network)
    settings = _settings(config, data)
    first, best = _resume(folder, settings, network, optimizer, scenes)
    several = device == torch.device("cuda") and torch.cuda.device_count() > 1
    model: nn.Module = SupervisedOutputs(network)
    if several:
        model = nn.DataParallel(model)
    origin = {
        "config": as_dict(config),
        "data_sha256": settings["data_sha256"],
        "init_sha256": settings["init_sha256"],
        "provenance": provenance(),
    }
    return Run(
        config=config,
        folder=folder,
        device=device,
        precision=getattr(torch, config.machine.precision),
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
        log=RunLog(folder, first),
    )


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
        state = load_weights(config.init_from).state
        checkpoint.load_state(network, grow(network, state), config.init_from)
    return network.to(device)


def batches(run: Run) -> Iterator[PatchPair]:
    """Iterate over the batches of all remaining steps, [B, 3, P, P]."""
    per_step = patches_per_step(run.config.training)
    loader = DataLoader(
        run.data.patches,
        run.config.training.batch_size,
        sampler=range(run.first * per_step, run.steps * per_step),
        num_workers=run.config.workers,
        pin_memory=run.device.type == "cuda",
    )
    return iter(loader)


def _settings(config: Config, data: TrainingData) -> dict[str, Any]:
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
        "data_sha256": pixels.hexdigest(),
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
        UserError: the folder contains another run.
    """
    path = folder / "latest.pt"
    if not path.exists():
        return 0, -math.inf
    state = checkpoint.load(path)
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
    checkpoint.load_state(network, rename(state["network"]), path)
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["best"]


def _recipe(settings: dict[str, Any]) -> dict[str, Any]:
    section = "training."
    return {k.removeprefix(section): v for k, v in settings.items() if k.startswith(section)}


def save_state(run: Run, done: int) -> None:
    """Write latest.pt. Patches and learning rate depend only on the step and need no state."""
    state = {
        "settings": json.dumps(run.settings),
        "step": done,
        "best": run.best,
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
    }
    checkpoint.save(run.folder / "latest.pt", state)


def save_weights(run: Run, done: int) -> None:
    """Write best.pt: the weights, the arguments of the network, and provenance."""
    weights = checkpoint.Weights(
        run.network.state_dict(),
        run.config.network.name,
        asdict(run.config.network),
        {**run.origin, "step": done, "validation_psnr_y": run.best},
    )
    checkpoint.save_weights(run.folder / "best.pt", weights)
