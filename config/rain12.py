"""Rain12: twelve light-rain pairs and no training set (Li et al., CVPR 2016).

Most papers evaluate it with the model trained on Rain100L. The JDNet paper uses the one trained on
Rain100H.

    datasets/Rain12/rainy/         001_in.png ...
    datasets/Rain12/groundtruth/   001_GT.png ...
    python eval.py rain12 --weights runs/rain100l/best.pt

The paper reports 37.02 dB / 0.97.
"""

from dataclasses import replace
from pathlib import Path

from config.rain100l import CONFIG as RAIN100L
from config.reference import Facts, Preset, Published
from config.schema import Folders

CONFIG = replace(
    RAIN100L,
    name="rain12",
    data=Folders(
        dataset="rain12",
        train_folder=None,
        test_folder=Path("datasets/Rain12"),
        layout="two-folders",
    ),
)

# Table 1 of the JDNet paper, by its released script; PReNet's repository.
PUBLISHED = (
    Published("JDNet, paper (Rain100H model)", "rgb-jdnet", 37.02, 0.97),
    Published("PReNet (Rain100L model)", "y-prenet", 36.66, 0.961),
)

PRESETS = (Preset(CONFIG, Facts(0, (12,), PUBLISHED)),)
