"""Rain200L, the new release of Rain100L: light rain (Yang et al., CVPR 2017).

1800 training and 200 test pairs. The JDNet paper calls it Rain100L.

    datasets/Rain200L/train/   norain/norain-N.png and rain/norain-Nx2.png
    datasets/Rain200L/test/    norain/norain-N.png and rain/norain-Nx2.png
    python train.py rain200l

`input/N.png` and `target/N.png` are found, too. The released code of JDNet reads wide images with
the clean half on the left: `--layout side-by-side`. The paper's recipe with the released batch size
of 32 takes 56,251 steps, and the paper reports 38.65 dB / 0.99.
"""

from dataclasses import replace
from pathlib import Path

from config.rain100l import CONFIG as RAIN100L
from config.reference import Facts, Preset, Published
from config.schema import Folders

CONFIG = replace(
    RAIN100L,
    name="rain200l",
    data=Folders(
        dataset="rain200l",
        train_folder=Path("datasets/Rain200L/train"),
        test_folder=Path("datasets/Rain200L/test"),
        layout="two-folders",
    ),
)

# Sources: see `rain200h.py`.
PUBLISHED = (
    Published("JDNet, paper", "rgb-jdnet", 38.65, 0.99),
    Published("Restormer", "y", 40.99, 0.989),
    Published("DRSformer", "y", 41.23, 0.989),
    Published("NeRD-Rain", "y", 41.71, 0.990),
)

PRESETS = (Preset(CONFIG, Facts(1800, (200,), PUBLISHED)),)
