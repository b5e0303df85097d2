"""Rain100H, old release: heavy rain over BSDS500 photographs (Yang et al., CVPR 2017).

1800 training and 100 test pairs. 546 training pairs share their background with the test set, and
PReNet trains on the other 1254. Most tables of Rain100H use this release. The new one has other
images: see `rain200h.py`.

    datasets/RainTrainH/   rain-N.png and norain-N.png
    datasets/Rain100H/     norain-NNN.png and rainy/rain-NNN.png
    python train.py rain100h

The recipe of the JDNet paper: 150,001 steps of 12 patches.
"""

from pathlib import Path

from config.reference import Facts, Preset, Published
from config.schema import Config, Folders, Training

CONFIG = Config(
    name="rain100h",
    training=Training(clip=None),
    data=Folders(
        dataset="rain100h",
        train_folder=Path("datasets/RainTrainH"),
        test_folder=Path("datasets/Rain100H"),
    ),
)

# From the PReNet and RCDNet repositories; Restormer as quoted in later papers.
PUBLISHED = (
    Published("PReNet (1254 training pairs)", "y-prenet", 29.46, 0.899),
    Published("RCDNet (1800 training pairs)", "y-float", 31.28, 0.909),
    Published("Restormer (1800, retrained)", "y", 31.96, 0.916),
)

PRESETS = (Preset(CONFIG, Facts(1800, (100,), PUBLISHED, release="old release")),)
