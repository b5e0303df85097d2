"""Rain1200: 12,000 training and 1,200 test pairs in three densities (Zhang and Patel, CVPR 2018).

Each file holds both images side by side, with the rainy image on the left.

    datasets/Rain1200/train/   0.jpg ...
    datasets/Rain1200/test/    0.jpg ...
    python train.py rain1200

Also known as DID-MDN. The JDNet paper does not use it. The recipe is that of Rain100H with the same
number of steps (150,001), not the same number of passes.
"""

from dataclasses import replace
from pathlib import Path

from config.rain100h import CONFIG as RAIN100H
from config.reference import Preset, Release
from config.schema import Folders

CONFIG = replace(
    RAIN100H,
    name="rain1200",
    data=Folders(
        dataset="rain1200",
        train_folder=Path("datasets/Rain1200/train"),
        test_folder=Path("datasets/Rain1200/test"),
        layout="side-by-side",
        order="rainy-clean",
        release="DID-MDN",
    ),
    training=replace(RAIN100H.training, steps=150_001),
)

PRESETS = (Preset(CONFIG, {"DID-MDN": Release(12_000, 1200)}),)
