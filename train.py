"""Train a network: `python train.py [PRESET] [flags]`. To resume, run the same command again.

A run writes to runs/NAME: config.json, log.jsonl, tensorboard/, latest.pt (resume state), best.pt
(weights), and at the end scores.csv, scores.json and strips/.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from config.cli import train_config
from config.schema import Config, Evaluate, Training, as_dict
from data.open import TrainingData, open_training
from data.pairs import Pairs
from data.patches import Patches, PatchPair
from eval import (
    Scores,
    describe,
    evaluate,
    open_network,
    table,
    write_scores,
)
from models import NETWORKS, JDNet, Network
from utils import checkpoint
from utils.errors import UserError, run_command
from utils.files import write_text
from utils.image import side_by_side, to_pixels, to_tensor
from utils.inference import derain
from utils.losses import LOSSES, Loss
from utils.metrics import WINDOW
from utils.optimizers import Muon
from utils.runlog import RunLog
from utils.runtime import (
    choose_device,
    count_parameters,
    keep_freed_memory,
    peak_memory,
    provenance,
    set_threads,
    synchronize,
)

# What the log shows of losses that stay near -1.
NEAR_MINUS_ONE = {"ssim": "1-ssim", "ssim-l1": "1-ssim+l1"}
# Settings that decide how long a run is.
LENGTH = ("training.steps", "training.passes", "training.cooldown")


def train(config: Config) -> Scores:
    """Train as `config` says, or go on where the run in its folder stopped; then score the test.

    Raises:
        UserError: the data cannot be used, the folder holds another run, or the loss explodes.
    """
    recipe, monitoring = config.training, config.monitoring
    folder = config.run or Path("runs") / config.name
    device = choose_device(config.machine.device)
    precision = getattr(torch, config.machine.precision)

    data = _open_data(config)
    patches, held_out, test = data
    watched = held_out or test[: monitoring.eval_pairs]
    steps = total_steps(recipe, patches.scenes)

    network = _build(config, device)
    optimizer = _optimizer(recipe, network)
    settings = _settings(config, data)
    first, best = _resume(folder, settings, network, optimizer, patches.scenes)
    several = device == torch.device("cuda") and torch.cuda.device_count() > 1
    stages = _Stages(network)
    parallel = nn.DataParallel(stages) if several else stages
    parallel.train()

    log = RunLog(folder, first)
    _announce(config, folder, device, first, steps, patches, network)
    origin = {
        "config": as_dict(config),
        "data_sha256": settings["data_sha256"],
        "start_sha256": settings["start_sha256"],
        "provenance": provenance(),
    }
    write_text(folder / "config.json", json.dumps(origin, indent=2) + "\n")
    log.event("start", first, **origin)
    batches = _batches(patches, recipe, first, steps, config.workers, device)
    compute_loss = _loss(recipe)
    saved = time.monotonic()

    for step in tqdm(range(first, steps), "training", initial=first, total=steps, disable=None):
        lr = learning_rate(recipe, step, steps, patches.scenes)
        for group in optimizer.param_groups:
            group["lr"] = lr

        optimizer.zero_grad()
        loss = 0.0
        for _ in range(recipe.accumulate):
            rainy, clean = (part.to(device, non_blocking=True) for part in next(batches))
            with torch.autocast(device.type, precision, precision != torch.float32):
                outputs = parallel(rainy)
            part = compute_loss(outputs, clean) / recipe.accumulate
            part.backward()
            loss += part.item()
            del outputs, part  # they hold the graph, which would live through the next forward
        norm = nn.utils.clip_grad_norm_(network.parameters(), recipe.clip or math.inf).item()
        if not math.isfinite(loss + norm):
            latest = folder / "latest.pt"
            kept = (
                f"the last good state is {latest}" if latest.exists() else "nothing was saved yet"
            )
            raise UserError(
                f"loss {loss:g} with gradient norm {norm:g} at update {step}: {kept}; start a new "
                "--run with a lower --lr or --clip"
            )
        optimizer.step()

        done = step + 1
        if done % monitoring.log_every == 0 or done == steps:
            # -SSIM is near -1 all along; its distance from there is what tells.
            value = 1 + loss if recipe.loss in NEAR_MINUS_ONE else loss
            name = NEAR_MINUS_ONE.get(recipe.loss, recipe.loss)
            log.event("step", done, **{name: value}, lr=lr, gradient_norm=norm)
        if done % monitoring.eval_every == 0 or done == steps:
            psnr = _evaluate_on_the_way(network, watched, device, precision, log, done)
            if psnr > best or not held_out:
                best = psnr
                metadata = {**origin, "step": done, "watched_psnr_y": psnr}
                _save_weights(folder, config, network, metadata)
        if done == steps or time.monotonic() - saved > 60 * monitoring.save_minutes:
            _save_state(folder, settings, network, optimizer, done, best)
            saved = time.monotonic()

    weights = folder / "best.pt"
    network = open_network(weights, config.network, device)
    scores = evaluate(network, test, Evaluate.conventions, device, strips=folder / "strips")
    write_scores(folder, scores, {**describe(weights), **origin})
    log.event("test", steps, psnr_y=scores.mean("y", "psnr"), ssim_y=scores.mean("y", "ssim"))
    log.close()
    method = f"{type(network).__name__} ({weights})"
    print(table(scores, config.data, method))
    print(f"\nwritten: {weights}, {folder}/scores.csv, scores.json, strips/, tensorboard/")
    return scores


def total_steps(recipe: Training, scenes: int) -> int:
    """Number of updates.

    The released code counts passes over patches, not epochs over batches, and its loop makes one
    update more than that: 1000 * 1800 / 12 + 1 = 150,001 for Rain100H.
    """
    if recipe.steps is not None:
        return recipe.steps
    return int(recipe.passes * scenes / _patches_per_step(recipe)) + 1


def learning_rate(recipe: Training, step: int, steps: int, scenes: int) -> float:
    """Learning rate of update `step`, 0-based: a function of the step alone.

    The trapezoid rises over `warmup` steps, stays, and falls linearly over the last `cooldown`
    share: while it stays, no rate depends on the length, which may still change.
    The released scheduler is stepped before each update, so a cut comes one update early.
    """
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * step / steps)) / 2
    if recipe.schedule == "trapezoid":
        rise = (step + 1) / max(1, recipe.warmup)
        fall = (steps - step) / max(1.0, recipe.cooldown * steps)
        return recipe.lr * min(1.0, rise, fall)
    cuts = milestones(recipe, scenes)
    return recipe.lr * recipe.decay ** sum(cut <= step + 1 for cut in cuts)


def milestones(recipe: Training, scenes: int) -> list[int]:
    """Updates at which the released scheduler cuts the learning rate."""
    if recipe.steps is not None:
        return [int(share * recipe.steps) for share in recipe.milestones]
    per_step = _patches_per_step(recipe)
    return [int(share * recipe.passes * scenes / per_step) for share in recipe.milestones]


def plan(config: Config) -> str:
    """What `train` would do, and what it would cost here.

    Time and memory are estimates from two updates; on the CPU, with two patches and scaled up.

    Raises:
        UserError: the data cannot be used.
    """
    recipe = config.training
    device = choose_device(config.machine.device)
    precision = getattr(torch, config.machine.precision)
    data = _open_data(config)
    scenes = data.patches.scenes
    steps = total_steps(recipe, scenes)
    network = _build(config, device)

    count = min(recipe.batch_size, 2) if device.type == "cpu" else recipe.batch_size
    patch = torch.rand(count, 3, recipe.patch_size, recipe.patch_size, device=device)
    before, seconds = peak_memory(device), 0.0
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        with torch.autocast(device.type, precision, precision != torch.float32):
            outputs = network.stages(patch)
        _loss(recipe)(outputs, patch).backward()
        synchronize(device)
        seconds = time.perf_counter() - start
    scale = recipe.batch_size / count
    seconds *= scale * recipe.accumulate
    memory = before + (peak_memory(device) - before) * scale

    side, passes = recipe.patch_size, steps * _patches_per_step(recipe) / scenes
    cuts = ", ".join(f"{cut:,}" for cut in milestones(recipe, scenes))
    falls = {
        "multistep": f"times {recipe.decay:g} at {cuts}",
        "cosine": "cosine to 0",
        "trapezoid": f"constant after {recipe.warmup:,} steps, linear to 0 over the last "
        f"{recipe.cooldown * steps:,.0f}",
    }[recipe.schedule]
    rows = {
        "data": f"{data.patches.describe()} to train on, {len(data.held_out)} held-out and "
        f"{len(data.test)} test pairs",
        "network": f"{config.network.name}, {count_parameters(network):,} parameters",
        "update": f"{recipe.accumulate} x {recipe.batch_size} patches of {side}x{side}, "
        f"{recipe.loss} loss, {config.machine.precision} on {device}",
        "length": f"{steps:,} updates, {passes:,.0f} passes",
        "learning rate": f"{recipe.lr:g}, {falls}",
        "time": f"about {seconds:.2g} s an update, {seconds * steps / 3600:.2g} hours in all",
        "memory": f"about {memory / 2**30:.2g} GiB",
    }
    return "\n".join(f"{name + ':':<15}{value}" for name, value in rows.items())


def _open_data(config: Config) -> TrainingData:
    data = open_training(config)
    for pair in (*data.test, *data.held_out):  # else they would fail once the training is done
        if min(pair.clean.shape[:2]) < WINDOW:
            raise UserError(
                f"cannot score {pair.name}: it is smaller than {WINDOW}x{WINDOW} pixels"
            )
    return data


def _loss(recipe: Training) -> Loss:
    if recipe.loss == "ssim-l1":
        return partial(LOSSES[recipe.loss], weight=recipe.l1_weight)
    return LOSSES[recipe.loss]


def _optimizer(recipe: Training, network: nn.Module) -> torch.optim.Optimizer:
    if recipe.optimizer == "muon":
        return Muon(network, recipe.lr, recipe.weight_decay)
    return torch.optim.Adam(network.parameters(), fused=True)


class _Stages(nn.Module):
    """A network whose call, which is all that DataParallel spreads, gives every stage."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        return self.network.stages(rainy)


def _build(config: Config, device: torch.device) -> Network:
    torch.manual_seed(config.training.seed)
    network = NETWORKS[config.network.name](**asdict(config.network))
    if config.start:
        state = checkpoint.load_weights(config.start).state
        if isinstance(network, JDNet):
            state = network.grown(state)
        checkpoint.load_state(network, state, config.start)
    return network.to(device)


def _patches_per_step(recipe: Training) -> int:
    return recipe.batch_size * recipe.accumulate


def _batches(
    patches: Patches, recipe: Training, step: int, steps: int, workers: int, device: torch.device
) -> Iterator[PatchPair]:
    """The batches of updates `step` to `steps`, [B, 3, P, P]."""
    per_step = _patches_per_step(recipe)
    loader = DataLoader(
        patches,
        recipe.batch_size,
        sampler=range(step * per_step, steps * per_step),
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    return iter(loader)


def _settings(config: Config, data: TrainingData) -> dict[str, Any]:
    """All that decides the weights; a run is resumed only where it is the same."""
    pixels = hashlib.sha256()
    for pair in (*data.patches.pairs, *data.held_out):
        pixels.update(pair.rainy.tobytes())
        pixels.update(pair.clean.tobytes())
    # The layers of the pairs follow from the pairs.
    others = [image for source in data.patches.exchange.sources[1:] for image in source.images]
    for image in (*data.patches.dry, *others):
        pixels.update(image.tobytes())
    settings = as_dict(config)
    return {
        **{f"network.{k}": v for k, v in settings["network"].items()},
        **{f"training.{k}": v for k, v in settings["training"].items()},
        "precision": config.machine.precision,
        "data_sha256": pixels.hexdigest(),
        "start_sha256": config.start and hashlib.sha256(config.start.read_bytes()).hexdigest(),
        # Held-out pairs choose among the evaluated states.
        "eval_every": config.monitoring.eval_every if data.held_out else None,
    }


def _resume(
    folder: Path,
    settings: dict[str, Any],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scenes: int,
) -> tuple[int, float]:
    """Load the resume state if there is one: updates done and best PSNR so far.

    The length of a run may change as long as the learning rate of every step so far stays the same.
    """
    path = folder / "latest.pt"
    if not path.exists():
        return 0, -math.inf
    state = checkpoint.load(path)
    if "settings" not in state:
        raise UserError(f"{path} is no resume state of train.py: give this run another --run")
    # A setting that is younger than the run had its default.
    defaults = {f"training.{k}": v for k, v in as_dict(Training()).items()}
    then = {**settings, **defaults, **json.loads(state["settings"])}
    free = LENGTH if _same_rates(then, settings, state["step"], scenes) else ()
    for key, now in settings.items():
        if then[key] != now and key not in free:
            raise UserError(
                f"{folder} holds a run with other settings ({key} {then[key]}, now {now}): "
                "run its command again to resume it, or give this one another --run"
            )
    checkpoint.load_state(network, state["network"], path)
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["best"]


def _same_rates(then: dict[str, Any], now: dict[str, Any], done: int, scenes: int) -> bool:
    """Whether the first `done` steps have the same learning rates under both settings."""
    names = [field.name for field in fields(Training)]
    recipes = [Training(**{n: s[f"training.{n}"] for n in names}) for s in (then, now)]
    rates = [
        [learning_rate(r, step, total_steps(r, scenes), scenes) for step in range(done)]
        for r in recipes
    ]
    return rates[0] == rates[1] and done <= total_steps(recipes[1], scenes)


def _save_state(
    folder: Path,
    settings: dict[str, Any],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    best: float,
) -> None:
    """Write latest.pt. The patches and the learning rate need no state: they follow the step."""
    state = {
        "settings": json.dumps(settings),
        "step": step,
        "best": best,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    checkpoint.save(folder / "latest.pt", state)


def _save_weights(
    folder: Path, config: Config, network: nn.Module, metadata: dict[str, Any]
) -> None:
    """Write best.pt: the network, how to build it, and where it comes from."""
    weights = checkpoint.Weights(
        network.state_dict(), config.network.name, asdict(config.network), metadata
    )
    checkpoint.save_weights(folder / "best.pt", weights)


def _evaluate_on_the_way(
    network: nn.Module,
    watched: Pairs,
    device: torch.device,
    precision: torch.dtype,
    log: RunLog,
    step: int,
) -> float:
    """Score the watched pairs, show one of them, and return their mean PSNR in `y`."""
    scores = evaluate(network, watched, ["y"], device, precision)
    psnr = scores.mean("y", "psnr")
    log.event("eval", step, psnr_y=psnr, ssim_y=scores.mean("y", "ssim"))
    rainy, clean = watched[0].rainy, watched[0].clean
    network.eval()
    derained = derain(network, to_tensor(rainy).to(device), precision=precision)
    network.train()
    log.picture("rainy | derained | clean", step, side_by_side(rainy, to_pixels(derained), clean))
    return psnr


def _announce(
    config: Config,
    folder: Path,
    device: torch.device,
    step: int,
    steps: int,
    patches: Patches,
    network: nn.Module,
) -> None:
    verb = f"resuming after update {step} of" if step else "training for"
    print(
        f"{config.name}: {verb} {steps} updates on {patches.describe()}; "
        f"{config.network.name} with {count_parameters(network):,} parameters on {device}; "
        f"everything goes to {folder}/"
    )


def main(arguments: list[str]) -> None:
    """Run `train.py [PRESET] [flags]`."""
    keep_freed_memory()
    config = train_config(arguments)
    set_threads(config.machine.threads)
    if config.dry_run:
        print(plan(config))
    else:
        train(config)


if __name__ == "__main__":
    run_command(main)
