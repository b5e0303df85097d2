"""Rain200H, the new release of Rain100H: heavy rain (Yang et al., CVPR 2017).

1800 training and 200 test pairs. The JDNet paper calls it Rain100H.

    datasets/Rain200H/train/   norain/norain-N.png and rain/X2/norain-Nx2.png
    datasets/Rain200H/test/    norain/norain-N.png and rain/X2/norain-Nx2.png
    python train.py rain200h

`input/N.png` and `target/N.png` are found, too. The released code of JDNet reads wide images with
the clean half on the left: `--layout side-by-side`. The paper's recipe takes 150,001 steps, and the
paper reports 30.02 dB / 0.92.
"""

from dataclasses import replace
from pathlib import Path

from config.rain100h import CONFIG as RAIN100H
from config.reference import Facts, Preset, Published
from config.schema import Folders

CONFIG = replace(
    RAIN100H,
    name="rain200h",
    data=Folders(
        dataset="rain200h",
        train_folder=Path("datasets/Rain200H/train"),
        test_folder=Path("datasets/Rain200H/test"),
        layout="two-folders",
    ),
)

# Table 1 of the JDNet paper, by its released script; the tables of DRSformer (CVPR 2023) and
# NeRD-Rain (CVPR 2024), scored with Restormer's script.
PUBLISHED = (
    Published("JDNet, paper", "rgb-jdnet", 30.02, 0.92),
    Published("Restormer", "y", 32.00, 0.933),
    Published("DRSformer", "y", 32.17, 0.933),
    Published("NeRD-Rain", "y", 32.40, 0.937),
)

PRESETS = (Preset(CONFIG, Facts(1800, (200,), PUBLISHED)),)
