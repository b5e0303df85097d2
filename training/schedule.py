"""Length and learning rate of a training run; both depend only on the recipe and the step."""

import math
from dataclasses import fields
from typing import Any

from config.schema import Training

# Settings that may change on resume: the length of the run and its cooldown.
LENGTH = ("steps", "passes", "cooldown")


def patches_per_step(recipe: Training) -> int:
    """Number of patches per optimizer step."""
    return recipe.batch_size * recipe.accumulate


def total_steps(recipe: Training, scenes: int) -> int:
    """Number of steps.

    As in the released code, `passes` is the number of patches per scene, and the loop runs one
    more step: 1000 * 1800 / 12 + 1 = 150,001 for Rain100H.
    """
    if recipe.steps is not None:
        return recipe.steps
    return int(recipe.passes * scenes / patches_per_step(recipe)) + 1


def learning_rate(recipe: Training, step: int, steps: int, scenes: int) -> float:
    """Learning rate of a step.

    The trapezoid rises linearly over `warmup` steps, stays constant, and falls linearly to 0 over
    the final `cooldown` fraction. Before that, the rate does not depend on the length of the run.

    The released multistep scheduler is stepped before the optimizer, so each cut comes one step
    early.

    Args:
        recipe: the training recipe.
        step: step number, from 0.
        steps: length of the run in steps.
        scenes: number of training scenes.
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
    """Steps at which the multistep schedule cuts the learning rate."""
    if recipe.steps is not None:
        return [int(share * recipe.steps) for share in recipe.milestones]
    per_step = patches_per_step(recipe)
    return [int(share * recipe.passes * scenes / per_step) for share in recipe.milestones]


def describe_schedule(recipe: Training, steps: int, scenes: int) -> str:
    """Describe the learning rate schedule in words."""
    if recipe.schedule == "cosine":
        return "cosine to 0"
    if recipe.schedule == "trapezoid":
        fall = recipe.cooldown * steps
        return f"constant after {recipe.warmup:,} steps, linear to 0 over the last {fall:,.0f}"
    cuts = ", ".join(f"{cut:,}" for cut in milestones(recipe, scenes))
    return f"times {recipe.decay:g} at {cuts}"


def same_so_far(then: dict[str, Any], now: dict[str, Any], done: int, scenes: int) -> bool:
    """Whether two recipes have the same learning rates in the first `done` steps.

    Args:
        then: fields of `Training` of the saved run.
        now: fields of `Training` of the current run.
        done: number of completed steps.
        scenes: number of training scenes.
    """
    names = [field.name for field in fields(Training)]
    recipes = [Training(**{name: values[name] for name in names}) for values in (then, now)]
    lengths = [total_steps(recipe, scenes) for recipe in recipes]
    rates = [
        [learning_rate(recipe, step, length, scenes) for step in range(done)]
        for recipe, length in zip(recipes, lengths, strict=True)
    ]
    return rates[0] == rates[1] and done <= lengths[1]
