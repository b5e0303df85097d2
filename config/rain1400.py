"""Rain1400, or DDN-Data: fourteen kinds of rain over each photograph (Fu et al., CVPR 2017).

12,600 training pairs of 900 scenes and 1,400 test pairs of 100 other scenes. 901_1.jpg to
901_14.jpg are rainy images of 901.jpg.

    datasets/Rain1400/training/   rainy_image/1_1.jpg ... and ground_truth/1.jpg ...
    datasets/Rain1400/testing/    rainy_image/901_1.jpg ... and ground_truth/901.jpg ...
    python train.py rain1400

The JDNet paper does not use it. The recipe is that of Rain1200: 150,001 steps.
"""

from dataclasses import replace
from pathlib import Path

from config.rain1200 import CONFIG as RAIN1200
from config.reference import Facts, Preset, Published
from config.schema import Folders

CONFIG = replace(
    RAIN1200,
    name="rain1400",
    data=Folders(
        dataset="rain1400",
        train_folder=Path("datasets/Rain1400/training"),
        test_folder=Path("datasets/Rain1400/testing"),
        layout="two-folders",
    ),
)

# Table 1 of DRSformer (CVPR 2023), scored with RCDNet's script.
PUBLISHED = (
    Published("Restormer", "y-float", 34.20, 0.957),
    Published("DRSformer", "y-float", 34.35, 0.959),
)

PRESETS = (Preset(CONFIG, Facts(12_600, (1400,), PUBLISHED)),)
