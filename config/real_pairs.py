"""Real rain with a pseudo ground truth, to score with. There is no training set.

The frames of a rainy video are registered, and the temporal median of a frame's neighbours is its
ground truth. A mask says where it can be trusted: where the medians of even and of odd neighbours
agree. Outside of it things move.

    datasets/real_pairs/rainy/   NAME.png
    datasets/real_pairs/clean/   NAME.png, the medians
    datasets/real_pairs/mask/    NAME.png, white where the median is known
    python eval.py real-pairs
    python eval.py real-pairs --match 'ntu*'

No such set is published; make one from your own videos. docs/metrics.md has our scores.
"""

from dataclasses import replace
from pathlib import Path

from config.real import CONFIG as REAL
from config.reference import Preset
from config.schema import Folders

CONFIG = replace(
    REAL,
    name="real-pairs",
    data=Folders(
        dataset="real-pairs",
        train_folder=None,
        test_folder=Path("datasets/real_pairs"),
        layout="masked",
    ),
)

PRESETS = (Preset(CONFIG, weights="jdnet-small-real.safetensors"),)
