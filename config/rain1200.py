"""Rain1200, or DID-Data: rain of three densities (Zhang and Patel, CVPR 2018).

12,000 training and 1,200 test pairs.

Each file holds both images side by side, with the rainy image on the left.

    datasets/Rain1200/train/   0.jpg ...
    datasets/Rain1200/test/    0.jpg ...
    python train.py rain1200

Copies with a folder of each half, as Restormer's successors pass on, need `--layout two-folders`.
The JDNet paper does not use the dataset. The recipe is that of Rain100H with the same
number of steps (150,001), not the same number of passes.
"""

from dataclasses import replace
from pathlib import Path

from config.rain100h import CONFIG as RAIN100H
from config.reference import Facts, Preset, Published
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
    ),
    training=replace(RAIN100H.training, steps=150_001),
)

# Table 1 of DRSformer (CVPR 2023), scored with RCDNet's script.
PUBLISHED = (
    Published("Restormer", "y-float", 35.29, 0.964),
    Published("DRSformer", "y-float", 35.35, 0.965),
)

PRESETS = (Preset(CONFIG, Facts(12_000, (1200,), PUBLISHED)),)
