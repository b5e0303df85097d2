"""Length and learning rate of a training run, as functions of the step alone."""

import math
from dataclasses import fields
from typing import Any

from config.schema import Training

# Settings that only decide how long a run is.
LENGTH = ("steps", "passes", "cooldown")


def patches_per_step(recipe: Training) -> int:
    """Patches that one optimizer step sees."""
    return recipe.batch_size * recipe.accumulate


def total_steps(recipe: Training, scenes: int) -> int:
    """Number of steps.

    The released code counts passes over patches, not epochs over batches, and its loop makes one
    step more than that: 1000 * 1800 / 12 + 1 = 150,001 for Rain100H.
    """
    if recipe.steps is not None:
        return recipe.steps
    return int(recipe.passes * scenes / patches_per_step(recipe)) + 1


def learning_rate(recipe: Training, step: int, steps: int, scenes: int) -> float:
    """Learning rate of a step.

    The trapezoid rises over `warmup` steps, stays constant, and falls linearly over the last
    `cooldown` share. While it is constant, no rate depends on the length of the run.
    The released scheduler is stepped before the optimizer, so each cut comes one step early.

    Args:
        recipe: schedule and its settings.
        step: from 0.
        steps: length of the run.
        scenes: training scenes, which `passes` are counted over.
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
    """Steps at which the released scheduler cuts the learning rate."""
    if recipe.steps is not None:
        return [int(share * recipe.steps) for share in recipe.milestones]
    per_step = patches_per_step(recipe)
    return [int(share * recipe.passes * scenes / per_step) for share in recipe.milestones]


def describe_schedule(recipe: Training, steps: int, scenes: int) -> str:
    """The course of the learning rate in words."""
    if recipe.schedule == "cosine":
        return "cosine to 0"
    if recipe.schedule == "trapezoid":
        fall = recipe.cooldown * steps
        return f"constant after {recipe.warmup:,} steps, linear to 0 over the last {fall:,.0f}"
    cuts = ", ".join(f"{cut:,}" for cut in milestones(recipe, scenes))
    return f"times {recipe.decay:g} at {cuts}"


def same_so_far(then: dict[str, Any], now: dict[str, Any], done: int, scenes: int) -> bool:
    """Whether two recipes give the first `done` steps the same learning rates.

    Args:
        then: values of the fields of `Training`.
        now: the same.
        done: steps.
        scenes: training scenes.
    """
    names = [field.name for field in fields(Training)]
    recipes = [Training(**{name: values[name] for name in names}) for values in (then, now)]
    lengths = [total_steps(recipe, scenes) for recipe in recipes]
    rates = [
        [learning_rate(recipe, step, length, scenes) for step in range(done)]
        for recipe, length in zip(recipes, lengths, strict=True)
    ]
    return rates[0] == rates[1] and done <= lengths[1]
