"""Rain100H: heavy rain over BSDS500 photographs (Yang et al., CVPR 2017).

Two releases exist, and their scores do not compare. The old one has 100 test pairs and 1800
training pairs, of which 546 share their background with the test set (PReNet trains on the other
1254); it is the one that most tables score. The new one has 1800 and 200, is also called Rain200H,
and is the one in the JDNet paper.

    datasets/RainTrainH/   rain-N.png and norain-N.png                (old release)
    datasets/Rain100H/     norain-NNN.png and rainy/rain-NNN.png      (old release)
    python train.py rain100h
    python train.py rain100h --release new --layout side-by-side --train-folder A --test-folder B

The second command reads wide images, clean half on the left, as the released code does.
The paper's recipe: 150,001 updates of 12 patches. The paper reports 30.02 dB / 0.92 on the new
release.
"""

from pathlib import Path

from config.schema import Config, Dataset, Folders, Published, Release, Training

CONFIG = Config(
    name="rain100h",
    training=Training(clip=None),
    data=Folders(
        dataset="rain100h",
        train_folder=Path("datasets/RainTrainH"),
        test_folder=Path("datasets/Rain100H"),
    ),
)

DATASET = Dataset(
    CONFIG,
    {
        # The PReNet and RCDNet repositories; Restormer as quoted by later tables.
        "old": Release(
            train_pairs=1800,
            test_pairs=100,
            published=(
                Published("PReNet (1254 training pairs)", "y-prenet", 29.46, 0.899),
                Published("RCDNet (1800 training pairs)", "y-float", 31.28, 0.909),
                Published("Restormer (1800, retrained)", "y", 31.96, 0.916),
            ),
        ),
        # Table 1 of the JDNet paper, by its released script.
        "new": Release(1800, 200, (Published("JDNet, paper", "rgb-jdnet", 30.02, 0.92),)),
    },
)
