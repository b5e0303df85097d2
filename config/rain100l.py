"""Rain100L: light rain over BSDS500 photographs (Yang et al., CVPR 2017).

There are two releases, and their scores are not comparable. The old release has 200 training and
100 test pairs. Most published tables use it. The new release, also called Rain200L, has 1800
training and 200 test pairs. The JDNet paper uses it.

    datasets/RainTrainL/   rain-N.png and norain-N.png                (old release)
    datasets/Rain100L/     norain-NNN.png and rainy/rain-NNN.png      (old release)
    python train.py rain100l
    python train.py rain100l --release new --layout side-by-side --train-folder A --test-folder B

The second command reads wide images with the clean half on the left, as the released code does.
The paper's recipe with the released batch size of 32: 6,251 steps on the old release, 56,251 on the
new one. The paper reports 38.65 dB / 0.99 on the new release.
"""

from dataclasses import replace
from pathlib import Path

from config.rain100h import CONFIG as RAIN100H
from config.reference import Preset, Published, Release
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

RELEASES = {
    # From the PReNet and RCDNet repositories; Restormer as quoted in later papers.
    "old": Release(
        train_pairs=200,
        test_pairs=100,
        published=(
            Published("PReNet", "y-prenet", 37.48, 0.979),
            Published("RCDNet", "y-float", 40.00, 0.986),
            Published("Restormer (retrained)", "y", 39.98, 0.987),
        ),
    ),
    # Table 1 of the JDNet paper, computed with its released script.
    "new": Release(1800, 200, (Published("JDNet, paper", "rgb-jdnet", 38.65, 0.99),)),
}

PRESETS = (Preset(CONFIG, RELEASES),)
