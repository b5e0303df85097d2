"""Rain100H: heavy rain over BSDS500 photographs (Yang et al., CVPR 2017).

There are two releases, and their scores are not comparable. The old release has 1800 training and
100 test pairs; 546 training pairs share their background with the test set, and PReNet trains on
the other 1254. Most published tables use it. The new release, also called Rain200H, has 1800
training and 200 test pairs. The JDNet paper uses it.

    datasets/RainTrainH/   rain-N.png and norain-N.png                (old release)
    datasets/Rain100H/     norain-NNN.png and rainy/rain-NNN.png      (old release)
    python train.py rain100h
    python train.py rain100h --release new --layout side-by-side --train-folder A --test-folder B

The second command reads wide images with the clean half on the left, as the released code does.
The paper's recipe: 150,001 steps of 12 patches. The paper reports 30.02 dB / 0.92 on the new
release.
"""

from pathlib import Path

from config.reference import Preset, Published, Release
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

RELEASES = {
    # From the PReNet and RCDNet repositories; Restormer as quoted in later papers.
    "old": Release(
        train_pairs=1800,
        test_pairs=100,
        published=(
            Published("PReNet (1254 training pairs)", "y-prenet", 29.46, 0.899),
            Published("RCDNet (1800 training pairs)", "y-float", 31.28, 0.909),
            Published("Restormer (1800, retrained)", "y", 31.96, 0.916),
        ),
    ),
    # Table 1 of the JDNet paper, computed with its released script.
    "new": Release(1800, 200, (Published("JDNet, paper", "rgb-jdnet", 30.02, 0.92),)),
}

PRESETS = (Preset(CONFIG, RELEASES),)
