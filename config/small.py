r"""A quarter of the paper's network (8 of 32 units) with a recipe for short training runs.

    python train.py rain100l-small --precision auto
    python train.py rain100h-small --precision auto
    python train.py rain100h-small --train-folder datasets/RainTrainH_sample \
        --clean datasets/RainTrainL datasets/clean

Data: see `rain100l.py` and `rain100h.py`. The last command trains on a few heavy
rain layers over many clean scenes. The trials behind the recipe are in docs/experiments.md.
"""

from dataclasses import replace

from config.networks import JDNetConfig
from config.rain100h import CONFIG as RAIN100H
from config.rain100l import CONFIG as RAIN100L
from config.reference import Preset
from config.schema import Config, Rain, Training

RECIPE = Training(
    loss="ssim-l1",
    l1_weight=2,
    augment="flip",
    optimizer="muon",
    lr=2e-3,
    weight_decay=0.3,
    schedule="trapezoid",
    steps=60_000,
)


def small(dataset: Config) -> Config:
    """The small network and its recipe on a dataset."""
    return replace(
        dataset,
        name=f"{dataset.name}-small",
        rain=Rain(exchange=0.5),
        network=JDNetConfig(units=8),
        training=RECIPE,
    )


PRESETS = (
    Preset(small(RAIN100L), weights="jdnet-small-rain100l.safetensors"),
    Preset(small(RAIN100H), weights="jdnet-small-rain100h.safetensors"),
)
