"""Rain100L: light rain over BSDS500 photographs (Yang et al., CVPR 2017).

Two releases exist, and their scores do not compare. The old one has 200 training and 100 test
pairs and is the one that most tables score. The new one has 1800 and 200, is also called Rain200L,
and is the one in the JDNet paper.

    datasets/RainTrainL/   rain-N.png and norain-N.png                (old release)
    datasets/Rain100L/     norain-NNN.png and rainy/rain-NNN.png      (old release)
    python train.py rain100l
    python train.py rain100l --release new --layout side-by-side --train-folder A --test-folder B

The second command reads wide images, clean half on the left, as the released code does.
The paper's recipe with the released batch of 32: 6,251 updates on the old release, 56,251 on the
new. The paper reports 38.65 dB / 0.99 on the new release.
"""

from dataclasses import replace
from pathlib import Path

from config.rain100h import CONFIG as RAIN100H
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
