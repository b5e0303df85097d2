"""RainCityscapes: rendered rain and fog over streets of Cityscapes (Hu et al., CVPR 2019).

9,432 training pairs of 262 scenes and 1,188 test pairs of 33 scenes, 36 rainy images each, of
2048x1024 pixels. The clean images are those of Cityscapes, which has many more.

    datasets/RainCityscapes/leftImg8bit_rain/train/CITY/
        CITY_..._leftImg8bit_rain_alpha_0.01_beta_0.005_dropsize_0.01_pattern_1.png ...
    datasets/RainCityscapes/leftImg8bit/train/CITY/
        CITY_..._leftImg8bit.png
    python train.py raincityscapes

`val/` in both is the test set. The JDNet paper does not use the dataset. The recipe is that of
Rain1200: 150,001 steps.
"""

from dataclasses import replace
from pathlib import Path

from config.rain1200 import CONFIG as RAIN1200
from config.reference import Facts, Preset
from config.schema import Folders

CONFIG = replace(
    RAIN1200,
    name="raincityscapes",
    data=Folders(
        dataset="raincityscapes",
        train_folder=Path("datasets/RainCityscapes/leftImg8bit_rain/train"),
        test_folder=Path("datasets/RainCityscapes/leftImg8bit_rain/val"),
        layout="cityscapes",
    ),
)

# No published row: the convention of the paper's figures is not known.
PRESETS = (Preset(CONFIG, Facts(9432, (1188,))),)
