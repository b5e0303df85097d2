"""Train a network. To resume, run the same command again.

    python train.py                                            # the built-in example
    python train.py rain100l --train-folder DATA/train --test-folder DATA/test
    torchrun --nproc-per-node 8 -- train.py rain100l           # docs/training.md

A run writes config.json, log.jsonl, tensorboard/, latest.pt (resume state) and best.pt (weights) to
runs/NAME. At the end it adds scores.csv, scores.json and strips/.
"""

import json
import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from config.cli import train_config
from config.schema import Config, EvalConfig
from data.pairs import Pair
from data.patches import PatchPair
from evaluation.scores import Scores, describe_weights, evaluate, strip_writer, write_scores
from evaluation.tables import table
from models.load import open_network
from training.dry_run import plan
from training.interruption import Interruption
from training.losses import log_entry
from training.meter import Meter
from training.run import Run, batches, open_run, save_state, save_weights
from training.schedule import learning_rate
from utils import checkpoint, ranks
from utils.errors import Interrupted, run_command
from utils.files import write_text
from utils.image import Pixels, hstack
from utils.runtime import count_parameters, keep_freed_memory, set_threads


def train(config: Config) -> Scores:
    """Train a network, or resume the run in its folder, and then score the test pairs.

    Raises:
        UserError: the data cannot be used, the folder contains another run or is in use, or the
            loss is not finite.
        Interrupted: SIGTERM or Ctrl-C; the state is saved.
    """
    with open_run(config) as run:
        announce(run)
        with Interruption() as interruption:
            optimize(run, interruption)
        return score_test(run)


def optimize(run: Run, interruption: Interruption) -> None:
    """Do the remaining steps of a run; log, validate and save."""
    recipe, monitoring = run.config.training, run.config.monitoring
    if run.first == run.steps:  # shortened to the steps already done, or finished before
        ensure_weights(run)
        return
    stream, meter, saved = batches(run), Meter(run.folder), time.monotonic()
    todo = range(run.first, run.steps)
    for step in tqdm(todo, "training", initial=run.first, total=run.steps, disable=None):
        lr = learning_rate(recipe, step, run.steps, run.data.patches.scenes)
        for group in run.optimizer.param_groups:
            group["lr"] = lr
        meter.add(step, *compute_gradients(run, stream), interruption.received is not None)

        done = step + 1
        last = done == run.steps
        logs = last or done % monitoring.log_every == 0
        validates = last or done % monitoring.eval_every == 0
        if not logs and not validates and run.device.type != "cpu":
            run.optimizer.step()
            continue  # reading the meter waits for the GPU
        loss, norm, stops = meter.read()  # fails before a bad update can be saved
        run.optimizer.step()
        if logs:
            run.log.event("step", done, **log_entry(recipe, loss), lr=lr, gradient_norm=norm)
        better = validates and validate(run, done)
        late = time.monotonic() - saved > 60 * monitoring.save_minutes
        # The state follows the weights, so that they are never those of a later step that is lost.
        if better or last or stops or late:
            save_state(run, done)
            saved = time.monotonic()
        if stops:
            raise interrupted(run, done, interruption)


def compute_gradients(run: Run, stream: Iterator[PatchPair]) -> tuple[Tensor, Tensor]:
    """Compute and clip the gradients of one step; return the loss and the norm before clipping."""
    recipe = run.config.training
    run.optimizer.zero_grad()
    losses: list[Tensor] = []
    for part in range(recipe.accumulate):
        rainy, clean = (images.to(run.device, non_blocking=True) for images in next(stream))
        with ranks.accumulating(run.model, is_last=part + 1 == recipe.accumulate):
            loss = run.loss(run.model(rainy), clean) / recipe.accumulate
            loss.backward()
        losses.append(loss.detach())
        del loss  # free the graph before the next forward pass
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip or math.inf)
    return torch.stack(losses).sum(), norm


def interrupted(run: Run, done: int, interruption: Interruption) -> Interrupted:
    """The exception that ends an interrupted run, with the command that resumes it."""
    reason = interruption.received or signal.SIGTERM  # None on ranks that only heard of it
    command = f"{ranks.launcher()} {shlex.join(sys.argv)}"
    return Interrupted(
        f"stopped by {reason.name} after step {done} of {run.steps}, which is saved; to resume: "
        f"{command}",
        reason,
    )


def validate(run: Run, done: int) -> bool:
    """Score the monitored pairs, log an image of the first, and save weights that are better.

    Returns:
        Whether the weights were saved. Without validation pairs, the last ones are the best.
    """

    def view(index: int, pair: Pair, derained: Pixels) -> None:
        if index == 0:
            picture = hstack(pair.rainy, derained, pair.clean)
            run.log.picture("rainy | derained | clean", done, picture)

    scores = evaluate(run.network, run.monitored, ["y"], run.device, run.precision, view=view)
    psnr = scores.mean("y", "psnr")
    run.log.event("eval", done, psnr_y=psnr, ssim_y=scores.mean("y", "ssim"))
    exists = ranks.from_main((run.folder / "best.pt").exists)
    better = psnr > run.best or not run.data.validation or not exists
    if better:
        run.best = psnr
        save_weights(run, done)
    return better


def ensure_weights(run: Run) -> None:
    """Write best.pt after the last step if it is missing, or is of an earlier step by accident."""

    def is_current() -> bool:
        best = run.folder / "best.pt"
        if not best.exists() or run.data.validation:
            return best.exists()
        return bool(checkpoint.load_weights(best).metadata.get("step") == run.steps)

    if not ranks.from_main(is_current):
        validate(run, run.steps)


def score_test(run: Run) -> Scores:
    """Score best.pt on all test pairs; write and print the scores."""
    weights, network = run.folder / "best.pt", run.config.network
    best = ranks.from_main(partial(open_network, weights, "cpu", network.name, asdict(network)))
    best, write_strips = best.to(run.device), strip_writer(run.folder / "strips")
    scores = evaluate(best, run.data.test, EvalConfig.conventions, run.device, view=write_strips)
    publish(run, weights, scores)
    return scores


@ranks.main_only
def publish(run: Run, weights: Path, scores: Scores) -> None:
    """Write and print the test scores of a run."""
    write_scores(run.folder, scores, {**describe_weights(weights), **run.origin})
    psnr, ssim = (scores.mean("y", field) for field in ("psnr", "ssim"))
    run.log.event("test", run.steps, psnr_y=psnr, ssim_y=ssim)
    print(table(scores, run.config.data, f"{type(run.network).__name__} ({weights})"))
    print(f"\nwritten: {weights}, {run.folder}/scores.csv, scores.json, strips/, tensorboard/")


@ranks.main_only
def announce(run: Run) -> None:
    """Print and log the start of the run."""
    if run.data.left_out:
        print(f"{run.data.left_out} training pairs left out: they show scenes of validation pairs")
    verb = f"resuming after step {run.first} of" if run.first else "training for"
    print(
        f"{run.config.name}: {verb} {run.steps} steps on {run.data.patches.describe()}; "
        f"{run.config.network.name} with {count_parameters(run.network):,} parameters on "
        f"{run.device}; output in {run.folder}/"
    )
    write_text(run.folder / "config.json", json.dumps(run.origin, indent=2) + "\n")
    run.log.event("start", run.first, **run.origin)


def main(arguments: list[str]) -> None:
    """Run `train.py [PRESET] [flags]`."""
    keep_freed_memory()
    config = train_config(arguments, description=__doc__)
    set_threads(config.machine.threads)
    if config.dry_run:
        print(plan(config))
    else:
        with ranks.joined(config.machine.device):
            train(config)


if __name__ == "__main__":
    run_command(main)
