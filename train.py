"""Train a network. To resume, run the same command again.

    python train.py                                            # the built-in example
    python train.py rain100l --train-folder DATA/train --test-folder DATA/test

A run writes config.json, log.jsonl, tensorboard/, latest.pt (resume state) and best.pt (weights) to
runs/NAME. At the end it adds scores.csv, scores.json and strips/.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict

import torch
from torch import nn
from tqdm import tqdm

from config.cli import train_config
from config.schema import Config, EvalConfig
from data.pairs import Pair
from data.patches import PatchPair
from evaluation.scores import Scores, describe_weights, evaluate, strip_writer, write_scores
from evaluation.tables import table
from models.load import open_network
from training.dry_run import plan
from training.losses import log_entry
from training.run import Run, batches, open_run, save_state, save_weights
from training.schedule import learning_rate
from utils.errors import UserError, run_command
from utils.files import write_text
from utils.image import Pixels, hstack
from utils.runtime import count_parameters, keep_freed_memory, set_threads


def train(config: Config) -> Scores:
    """Train a network, or resume the run in its folder, and then score the test pairs.

    Raises:
        UserError: the data cannot be used, the folder contains another run, or the loss is not
            finite.
    """
    run = open_run(config)
    recipe, monitoring = config.training, config.monitoring
    announce(run)
    stream, saved = batches(run), time.monotonic()
    todo = range(run.first, run.steps)
    for step in tqdm(todo, "training", initial=run.first, total=run.steps, disable=None):
        lr = learning_rate(recipe, step, run.steps, run.data.patches.scenes)
        for group in run.optimizer.param_groups:
            group["lr"] = lr
        loss, norm = compute_gradients(run, stream)
        if not math.isfinite(loss + norm):
            raise UserError(explosion(run, step, loss, norm))
        run.optimizer.step()

        done = step + 1
        last = done == run.steps
        if last or done % monitoring.log_every == 0:
            run.log.event("step", done, **log_entry(recipe, loss), lr=lr, gradient_norm=norm)
        if last or done % monitoring.eval_every == 0:
            psnr = validate(run, done)
            if psnr > run.best or not run.data.validation:
                run.best = psnr
                save_weights(run, done)
        if last or time.monotonic() - saved > 60 * monitoring.save_minutes:
            save_state(run, done)
            saved = time.monotonic()
    return score_test(run)


def compute_gradients(run: Run, stream: Iterator[PatchPair]) -> tuple[float, float]:
    """Compute and clip the gradients of one step; return the loss and the norm before clipping."""
    recipe = run.config.training
    run.optimizer.zero_grad()
    loss = 0.0
    for _ in range(recipe.accumulate):
        rainy, clean = (images.to(run.device, non_blocking=True) for images in next(stream))
        with torch.autocast(run.device.type, run.precision, run.precision != torch.float32):
            outputs = run.model(rainy)
        part = run.loss(outputs, clean) / recipe.accumulate
        part.backward()
        loss += part.item()
        del outputs, part  # free the graph before the next forward pass
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip or math.inf)
    return loss, norm.item()


def explosion(run: Run, step: int, loss: float, norm: float) -> str:
    """Error message for a loss or gradient that is not finite."""
    latest = run.folder / "latest.pt"
    kept = f"the last good state is {latest}" if latest.exists() else "nothing was saved yet"
    return (
        f"loss {loss:g} with gradient norm {norm:g} at step {step}: {kept}; start a new --run with "
        "a lower --lr or --clip"
    )


def validate(run: Run, done: int) -> float:
    """Score the monitored pairs, log an image of the first, and return the mean PSNR in `y`."""

    def view(index: int, pair: Pair, derained: Pixels) -> None:
        if index == 0:
            picture = hstack(pair.rainy, derained, pair.clean)
            run.log.picture("rainy | derained | clean", done, picture)

    scores = evaluate(run.network, run.monitored, ["y"], run.device, run.precision, view=view)
    psnr = scores.mean("y", "psnr")
    run.log.event("eval", done, psnr_y=psnr, ssim_y=scores.mean("y", "ssim"))
    return psnr


def score_test(run: Run) -> Scores:
    """Score best.pt on all test pairs; write and print the scores."""
    weights, network = run.folder / "best.pt", run.config.network
    best = open_network(weights, run.device, network.name, asdict(network))
    write_strips = strip_writer(run.folder / "strips")
    scores = evaluate(best, run.data.test, EvalConfig.conventions, run.device, view=write_strips)
    write_scores(run.folder, scores, {**describe_weights(weights), **run.origin})
    psnr, ssim = (scores.mean("y", field) for field in ("psnr", "ssim"))
    run.log.event("test", run.steps, psnr_y=psnr, ssim_y=ssim)
    run.log.close()
    print(table(scores, run.config.data, f"{type(best).__name__} ({weights})"))
    print(f"\nwritten: {weights}, {run.folder}/scores.csv, scores.json, strips/, tensorboard/")
    return scores


def announce(run: Run) -> None:
    """Print and log the start of the run."""
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
        train(config)


if __name__ == "__main__":
    run_command(main)
