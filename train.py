"""Train a network. To resume, run the same command again.

    python train.py                                            # the built-in example
    python train.py rain100l --train-folder DATA/train --test-folder DATA/test
    torchrun --nproc-per-node 8 -- train.py rain100l           # docs/training.md

A run writes config.json, log.jsonl, tensorboard/, latest.pt (resume state) and best.pt (weights) to
runs/NAME. At the end it adds scores.csv, scores.json and strips/.
"""

import json
import shlex
import signal
import sys
import time
from functools import partial

from tqdm import tqdm

from config.cli import train_config
from config.schema import Config, EvalConfig
from data.pairs import Pair
from evaluation.scores import Scores, evaluate, strip_writer, write_scores
from evaluation.tables import table
from models import Derainer
from models.load import network_of
from training.dry_run import plan
from training.interruption import Interruption
from training.losses import log_entry
from training.meter import Meter
from training.resume import resumed, save_state, save_weights, settled
from training.run import Run, batches, build_run, take_step
from training.schedule import learning_rate
from utils import ranks
from utils.checkpoint import Weights, load_weights
from utils.errors import Interrupted, run_command
from utils.files import write_text
from utils.image import Pixels, hstack
from utils.runtime import count_parameters, keep_freed_memory, set_threads


def train(config: Config) -> Scores:
    """Train a network, or resume the run in its folder, and then score the test pairs.

    Returns:
        The scores of best.pt; empty without a test set.

    Raises:
        UserError: the data cannot be used, the folder contains another run or is in use, or the
            loss is not finite.
        Interrupted: SIGTERM or Ctrl-C; the state is saved.
    """
    run = build_run(settled(config))
    with resumed(run):
        announce(run)
        with Interruption() as interruption:
            optimize(run, interruption)
        ensure_weights(run)
        return score_test(run)


def optimize(run: Run, interruption: Interruption) -> None:
    """Do the remaining steps of a run; log, validate and save."""
    recipe, monitoring = run.config.training, run.config.monitoring
    patches, meter, saved = batches(run), Meter(run.folder), time.monotonic()
    todo = range(run.first, run.steps)
    for step in tqdm(todo, "training", initial=run.first, total=run.steps, disable=None):
        lr = learning_rate(recipe, step, run.steps, run.data.patches.scenes)
        meter.add(*take_step(run, patches, lr))

        done = step + 1
        last = done == run.steps
        logs = last or done % monitoring.log_every == 0
        validates = last or done % monitoring.eval_every == 0
        if not logs and not validates and run.device.type != "cpu":
            continue  # reading the meter waits for the GPU
        mean_loss, mean_norm = meter.read(done)  # fails if not finite, before anything is saved
        if logs:
            entry = log_entry(recipe, mean_loss)
            run.log.event("step", done, **entry, lr=lr, gradient_norm=mean_norm)
        better = validates and validate(run, done)
        stops = ranks.any_rank(interruption.received is not None)
        late = time.monotonic() - saved > 60 * monitoring.save_minutes
        # The state follows the weights, so that they are never those of a later step that is lost.
        if better or last or stops or late:
            save_state(run, done)
            saved = time.monotonic()
        if stops:
            raise interrupted(run, done, interruption)


def interrupted(run: Run, done: int, interruption: Interruption) -> Interrupted:
    """The exception that ends an interrupted run, with the command that resumes it."""
    reason = interruption.received or signal.SIGTERM  # None on the ranks without a signal
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

    psnr = run.best
    if run.monitored:
        derain = Derainer(run.result, precision=run.config.machine.precision, scale=1)
        scores = evaluate(derain, run.monitored, ["y"], view)
        psnr = scores.mean("y", "psnr")
        run.log.event("eval", done, psnr_y=psnr, ssim_y=scores.mean("y", "ssim"))
    exists = ranks.from_main((run.folder / "best.pt").exists)
    better = psnr > run.best or not run.data.validation or not exists
    if better:
        run.best = psnr
        save_weights(run, done)
    return better


def ensure_weights(run: Run) -> None:
    """Write best.pt if it is missing, or is not of the last step of a run without validation.

    This happens if a run is shortened to the steps already done.
    """

    def is_current() -> bool:
        best = run.folder / "best.pt"
        if not best.exists() or run.data.validation:
            return best.exists()
        return load_weights(best).metadata.get("step") == run.steps

    if not ranks.from_main(is_current):
        validate(run, run.steps)


def score_test(run: Run) -> Scores:
    """Score best.pt on all test pairs; write and print the scores."""
    path = run.folder / "best.pt"
    if not run.data.test:
        print(f"no test set: nothing was scored\n\nwritten: {path}, {run.folder}/tensorboard/")
        return Scores(())
    weights = ranks.from_main(partial(load_weights, path))
    best = Derainer(network_of(weights).place(run.device), precision="float32", scale=1)
    write_strips = strip_writer(run.folder / "strips")
    scores = evaluate(best, run.data.test, EvalConfig.conventions, write_strips)
    publish(run, weights, scores)
    return scores


@ranks.main_only
def publish(run: Run, weights: Weights, scores: Scores) -> None:
    """Write and print the test scores of a run."""
    write_scores(run.folder, scores, {**weights.describe(), **run.origin})
    psnr, ssim = (scores.mean("y", field) for field in ("psnr", "ssim"))
    run.log.event("test", run.steps, psnr_y=psnr, ssim_y=ssim)
    print(table(scores, run.config.data, f"{type(run.network).__name__} ({weights.path})"))
    print(f"\nwritten: {weights.path}, {run.folder}/scores.csv, scores.json, strips/, tensorboard/")


@ranks.main_only
def announce(run: Run) -> None:
    """Print and log the start of the run."""
    if run.data.left_out:
        print(f"{run.data.left_out} training pairs left out: they show scenes of validation pairs")
    verb = f"resuming after step {run.first} of" if run.first else "training for"
    print(
        f"{run.config.name}: {verb} {run.steps} steps on {run.data.patches.describe()}; "
        f"{run.config.network.name} with {count_parameters(run.network):,} parameters on "
        f"{run.device} in {run.config.machine.precision}; output in {run.folder}/"
    )
    if not run.data.test:
        print("no test set: the result will not be scored (--test-folder names a test set)")
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
