"""Plan of a training run and its estimated cost on this machine."""

import time

import torch

from config.schema import Config
from training.losses import make_loss
from training.resume import settled
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

    Time and memory are estimated from a few steps. On the CPU these have at most four patches, and
    the result is extrapolated to the batch size.

    Raises:
        UserError: the data cannot be used.
    """
    config = settled(config)
    recipe = config.training
    device = choose_device(config.machine.device)
    precision = choose_precision(config.machine.precision, device)
    data = open_data(config)
    scenes = data.patches.scenes
    steps = total_steps(recipe, scenes)
    network = build_network(config, device)
    compute_loss = make_loss(recipe)

    size = recipe.batch_size
    counts = [min(size, n) for n in (1, 2, 4, 4)] if device.type == "cpu" else [size, size]
    patch = torch.rand(max(counts), 3, recipe.patch_size, recipe.patch_size, device=device)
    peaks, seconds = [], 0.0
    for count in counts:  # all but the last are warm-ups
        start = time.perf_counter()
        network.zero_grad()
        with autocast(device, precision):
            outputs = network.stages(patch[:count])
        compute_loss(outputs, patch[:count]).backward()
        synchronize(device)
        seconds = time.perf_counter() - start
        peaks.append(peak_memory(device))
    seconds *= size / counts[-1] * recipe.accumulate
    per_patch = (peaks[-1] - peaks[1]) / max(1, counts[-1] - counts[1])
    memory = peaks[-1] + per_patch * (size - counts[-1])

    side, passes = recipe.patch_size, steps * patches_per_step(recipe) / scenes
    rows = {
        "data": f"{data.patches.describe()} for training, {len(data.validation)} validation and "
        f"{len(data.test)} test pairs" + f", {data.left_out} left out" * bool(data.left_out),
        "network": f"{config.network.name}, {count_parameters(network):,} parameters",
        "step": f"{recipe.accumulate} x {recipe.batch_size} patches of {side}x{side}, "
        f"{recipe.loss} loss, {config.machine.precision} on {device}",
        "length": f"{steps:,} steps, {passes:,.0f} passes",
        "learning rate": f"{recipe.optimizer}, {recipe.lr:g}, "
        + describe_schedule(recipe, steps, scenes),
        "time": f"about {seconds:.2g} s per step, {seconds * steps / 3600:.2g} hours in total",
        "memory": f"about {memory / 2**30:.2g} GiB" if memory else "not known on this system",
    }
    return "\n".join(f"{name + ':':<15}{value}" for name, value in rows.items())
