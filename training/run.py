"""The parts of a training run: data, network, optimizer and loss."""

import hashlib
import math
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from config.schema import Config, Training, as_dict
from data.open import TrainingData, open_training, refuse_output
from data.pairs import Pairs, smaller_than, streams
from data.patches import PatchPair
from models.load import grow
from models.network import Network
from models.registry import build
from training.losses import Loss, make_loss
from training.optimizers import make_optimizer
from training.schedule import total_steps
from utils import checkpoint, ranks
from utils.errors import UserError
from utils.files import is_same
from utils.metrics import WINDOW
from utils.runlog import RunLog
from utils.runtime import autocast, choose_device, choose_precision, cores, provenance


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
    """The parts of a run. `training.resume` sets the last three fields."""

    config: Config
    folder: Path
    device: torch.device
    precision: torch.dtype
    data: TrainingData
    network: Network
    model: nn.Module  # `network` with all supervised outputs, on all GPUs or ranks
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None  # moving average of `network`
    loss: Loss
    steps: int
    origin: dict[str, Any]  # config, hashes and provenance, stored with weights, scores and log
    first: int = 0  # steps done before this process
    best: float = -math.inf  # PSNR of the best validation so far, dB
    log: RunLog = field(init=False)

    @property
    def result(self) -> Network:
        """The network that is validated and saved: the average, if there is one."""
        return self.network if self.average is None else cast(Network, self.average.module)

    @property
    def monitored(self) -> Pairs:
        """Pairs scored during training: validation pairs, else a few test pairs, else none."""
        return self.data.validation or self.data.test[: self.config.monitoring.eval_pairs]


def folder_of(config: Config) -> Path:
    """The folder of a run."""
    return config.run or Path("runs") / config.name


def build_run(config: Config) -> Run:
    """Build a run that has done no steps; writes nothing.

    Args:
        config: with a precision other than auto, see `training.resume.settled`.

    Raises:
        UserError: the data or the initial weights cannot be used, or the batch cannot be divided
            among the processes.
    """
    recipe = config.training
    ranks.share_of_batch(recipe.batch_size)
    folder = folder_of(config)
    if config.init_from and is_same(config.init_from.resolve().parent, folder):
        raise UserError(
            f"--init-from {config.init_from} would be overwritten: copy it elsewhere, or choose "
            "another --run"
        )
    refuse_output(config.data, folder)
    device = choose_device(ranks.local_device(config.machine.device))
    precision = choose_precision(config.machine.precision, device)
    data = open_data(config)
    network = build_network(config, device)
    model = ranks.parallel(SupervisedOutputs(network, precision), device)
    if device == torch.device("cuda") and torch.cuda.device_count() > 1:
        model = nn.DataParallel(model)
    return Run(
        config=config,
        folder=folder,
        device=device,
        precision=precision,
        data=data,
        network=network,
        model=model.train(),
        optimizer=make_optimizer(recipe, network),
        average=make_average(recipe, network),
        loss=make_loss(recipe),
        steps=total_steps(recipe, data.patches.scenes),
        origin={
            "config": as_dict(config),
            "data_sha256": hash_data(data),
            "init_sha256": config.init_from
            and hashlib.sha256(config.init_from.read_bytes()).hexdigest(),
            "provenance": provenance(device),
        },
    )


def open_data(config: Config) -> TrainingData:
    """Open the images of a run and check that the scored ones are large enough.

    Raises:
        UserError: the data cannot be used.
    """
    data = open_training(config)
    for pairs in (data.test, data.validation):  # fail now, not after the training
        if (small := smaller_than(pairs, WINDOW)) is not None:
            raise UserError(
                f"cannot score {small.name}: it is smaller than {WINDOW}x{WINDOW} pixels"
            )
    return data


def hash_data(data: TrainingData) -> str:
    """SHA-256 of all pixels of the training and validation data.

    Pairs that do not fit in memory are described by their files: names, lengths and dates.
    """
    pixels = hashlib.sha256()
    if data.fingerprint is not None:
        pixels.update(data.fingerprint.encode())
    else:
        for pair in (*data.patches.pairs, *data.validation):
            pixels.update(pair.rainy.tobytes())
            pixels.update(pair.clean.tobytes())
    # The first source contains the layers of the pairs, which are already hashed.
    layers = [image for source in data.patches.sources[1:] for image in source.images]
    for image in (*data.patches.clean_scenes, *layers):
        pixels.update(image.tobytes())
    return pixels.hexdigest()


def build_network(config: Config, device: torch.device) -> Network:
    """Build the network with its initial weights.

    Raises:
        UserError: the initial weights do not fit.
    """
    torch.manual_seed(config.training.seed)
    network = build(config.network)
    if config.init_from:
        weights = checkpoint.load_weights(config.init_from)
        checkpoint.load_state(network, grow(network, weights.state), config.init_from)
        for key, now in asdict(config.network).items():
            if key != "units" and (then := weights.arguments.get(key, now)) != now:
                _note(f"{config.init_from} has {key} {then}, this run has {key} {now}")
    return network.place(device)


@ranks.main_only
def _note(text: str) -> None:
    print(f"note: {text}")


def make_average(recipe: Training, network: Network) -> AveragedModel | None:
    """The moving average of the weights and of BatchNorm's statistics; None without --ema."""
    if not recipe.ema:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)


def batches(run: Run) -> Iterator[PatchPair]:
    """Yield the batches of all remaining steps, [B, 3, P, P], on the device of the run.

    Batch k contains the same patches for every number of processes; each takes its share.
    """
    recipe = run.config.training
    share, size = ranks.share_of_batch(recipe.batch_size), recipe.batch_size
    todo = range(run.first * recipe.accumulate, run.steps * recipe.accumulate)
    loader = DataLoader(
        run.data.patches,
        batch_sampler=([k * size + position for position in share] for k in todo),
        num_workers=loading_processes(run),
        pin_memory=run.device.type == "cuda",
        worker_init_fn=_ignore_interrupts,
    )
    try:
        for images in loader:
            yield PatchPair(*(tensor.to(run.device, non_blocking=True) for tensor in images))
        return
    except UserError as error:  # that of a loading process arrives with its traceback
        fault = str(error).rpartition("UserError: ")[2].strip()
    # Here, where nothing refers to the first error: its frames would keep the processes alive.
    raise UserError(fault)


def take_step(run: Run, patches: Iterator[PatchPair], lr: float) -> tuple[Tensor, Tensor]:
    """Update the network once.

    Args:
        run: the run.
        patches: see `batches`; `accumulate` of them are taken.
        lr: learning rate.

    Returns:
        The loss and the norm of the gradient, on the device of the run.
    """
    recipe = run.config.training
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.optimizer.zero_grad()
    total = torch.zeros((), device=run.device)
    for part in range(recipe.accumulate):
        rainy, clean = next(patches)
        with ranks.accumulating(run.model, is_last=part + 1 == recipe.accumulate):
            loss = run.loss(run.model(rainy), clean) / recipe.accumulate
            loss.backward()
        total += loss.detach()
        del loss  # and its graph, before the next forward pass
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip or math.inf)
    run.optimizer.step()
    if run.average is not None:
        run.average.update_parameters(run.network)
    return total, norm


def loading_processes(run: Run) -> int:
    """Number of data loading processes: two, or this process's share of the cores for streams."""
    if run.config.workers is not None:
        return run.config.workers
    return max(1, cores() // ranks.local_size()) if streams(run.data.patches.pairs) else 2


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C and SIGTERM may reach all processes; a worker serves until the main process ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
