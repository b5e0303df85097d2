"""Rain100L, old release: light rain over BSDS500 photographs (Yang et al., CVPR 2017).

200 training and 100 test pairs. Most tables of Rain100L use this release. The new one has other
images: see `rain200l.py`.

    datasets/RainTrainL/   rain-N.png and norain-N.png
    datasets/Rain100L/     norain-NNN.png and rainy/rain-NNN.png
    python train.py rain100l

The recipe of the JDNet paper with the released batch size of 32: 6,251 steps.
"""

from dataclasses import replace
from pathlib import Path

from config.rain100h import CONFIG as RAIN100H
from config.reference import Facts, Preset, Published
from config.schema import Folders

CONFIG = replace(
    RAIN100H,
    name="rain100l",
    data=Folders(
        dataset="rain100l",
        train_folder=Path("datasets/RainTrainL"),
        test_folder=Path("datasets/Rain100L"),
    ),
    training=replace(RAIN100H.training, batch_size=32),
)

# From the PReNet and RCDNet repositories; Restormer as quoted in later papers.
PUBLISHED = (
    Published("PReNet", "y-prenet", 37.48, 0.979),
    Published("RCDNet", "y-float", 40.00, 0.986),
    Published("Restormer (retrained)", "y", 39.98, 0.987),
)

PRESETS = (Preset(CONFIG, Facts(200, (100,), PUBLISHED, release="old release")),)
