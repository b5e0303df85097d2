"""Plan of a training run and its estimated cost on this machine."""

import time

import torch

from config.schema import Config
from training.losses import make_loss
from training.run import build_network, open_data
from training.schedule import describe_schedule, patches_per_step, total_steps
from utils.runtime import (
    autocast,
    choose_device,
    choose_precision,
    count_parameters,
    peak_memory,
    synchronize,
)


def plan(config: Config) -> str:
    """Describe a run as aligned text.

    Time and memory are estimated from three steps. On the CPU these have one or two patches, and
    the result is extrapolated to the batch size.

    Raises:
        UserError: the data cannot be used.
    """
    recipe = config.training
    device = choose_device(config.machine.device)
    precision = choose_precision(config.machine.precision, device)
    data = open_data(config)
    scenes = data.patches.scenes
    steps = total_steps(recipe, scenes)
    network = build_network(config, device)
    compute_loss = make_loss(recipe)

    count = min(recipe.batch_size, 2) if device.type == "cpu" else recipe.batch_size
    patch = torch.rand(count, 3, recipe.patch_size, recipe.patch_size, device=device)
    peaks, seconds = [], 0.0
    for part in (patch[:1], patch, patch):  # the first two are warm-ups
        start = time.perf_counter()
        with autocast(device, precision):
            outputs = network.stages(part)
        compute_loss(outputs, part).backward()
        synchronize(device)
        seconds = time.perf_counter() - start
        peaks.append(peak_memory(device))
    seconds *= recipe.batch_size / count * recipe.accumulate
    memory = peaks[0] + (peaks[-1] - peaks[0]) * (recipe.batch_size - 1) / max(1, count - 1)

    side, passes = recipe.patch_size, steps * patches_per_step(recipe) / scenes
    rows = {
        "data": f"{data.patches.describe()} for training, {len(data.validation)} validation and "
        f"{len(data.test)} test pairs",
        "network": f"{config.network.name}, {count_parameters(network):,} parameters",
        "step": f"{recipe.accumulate} x {recipe.batch_size} patches of {side}x{side}, "
        f"{recipe.loss} loss, {config.machine.precision} on {device}",
        "length": f"{steps:,} steps, {passes:,.0f} passes",
        "learning rate": f"{recipe.optimizer}, {recipe.lr:g}, "
        + describe_schedule(recipe, steps, scenes),
        "time": f"about {seconds:.2g} s per step, {seconds * steps / 3600:.2g} hours in total",
        "memory": f"about {memory / 2**30:.2g} GiB",
    }
    return "\n".join(f"{name + ':':<15}{value}" for name, value in rows.items())
