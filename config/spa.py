"""SPA-Data: real rain, and clean images made from videos (Wang et al., CVPR 2019).

638,492 training pairs of 256x256 and 1,000 test pairs of 512x512 pixels. The dataset names them in
two text files; each line has a rainy file and its clean one, which several rainy files may share.

    datasets/SPA/real_world.txt       ./real_world/..._rain.png ./real_world/....png
    datasets/SPA/real_test_1000.txt   /real_test_1000/rain/000.png /real_test_1000/gt/000gt.png
    python train.py spa

The paths are those below the folder of the list, with or without a slash in front. Copies with one
folder of rainy and one of clean images need `--layout two-folders` and their folders.

The JDNet paper does not use it. The recipe is that of Rain1200: 150,001 steps.
"""

from dataclasses import replace
from pathlib import Path

from config.rain1200 import CONFIG as RAIN1200
from config.reference import Facts, Preset, Published
from config.schema import Folders

CONFIG = replace(
    RAIN1200,
    name="spa",
    data=Folders(
        dataset="spa",
        train_folder=Path("datasets/SPA/real_world.txt"),
        test_folder=Path("datasets/SPA/real_test_1000.txt"),
        layout="list",
    ),
)

# Table 1 of DRSformer (CVPR 2023), scored with Restormer's script.
PUBLISHED = (
    Published("Restormer", "y", 47.98, 0.992),
    Published("DRSformer", "y", 48.54, 0.992),
)

PRESETS = (Preset(CONFIG, Facts(638_492, (1000,), PUBLISHED)),)
