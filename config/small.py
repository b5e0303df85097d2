r"""A quarter of the paper's network (8 of 32 units) with a recipe for short training runs.

    python train.py rain100l-small --precision bfloat16
    python train.py rain100h-small --precision bfloat16
    python train.py rain100h-small --train-folder datasets/RainTrainH_sample \
        --clean datasets/RainTrainL datasets/clean

Data: see `rain100l.py` and `rain100h.py`. The last command trains on a few heavy
rain layers over many clean scenes. The trials behind the recipe are in docs/experiments.md.
"""

from dataclasses import replace

from config.rain100h import CONFIG as RAIN100H
from config.rain100l import CONFIG as RAIN100L
from config.schema import Config, JDNetConfig, Training

RECIPE = Training(
    loss="ssim-l1",
    l1_weight=2,
    augment="flip",
    exchange=0.5,
    optimizer="muon",
    lr=2e-3,
    weight_decay=0.3,
    schedule="trapezoid",
    steps=60_000,
)

SMALL: tuple[Config, ...] = tuple(
    replace(dataset, name=f"{dataset.name}-small", network=JDNetConfig(units=8), training=RECIPE)
    for dataset in (RAIN100L, RAIN100H)
)
