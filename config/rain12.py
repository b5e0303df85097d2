"""Rain12: twelve light-rain pairs and no training set (Li et al., CVPR 2016).

The field scores it with the model trained on Rain100L, the JDNet paper with the one trained on
Rain100H.

    datasets/Rain12/rainy/         001_in.png ...
    datasets/Rain12/groundtruth/   001_GT.png ...
    python eval.py rain12 --weights runs/rain100l/best.pt

The paper reports 37.02 dB / 0.97.
"""

from dataclasses import replace
from pathlib import Path

from config.rain100l import CONFIG as RAIN100L
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
