"""Rain13K: a mix of datasets for training, scored on five test sets (Jiang et al., CVPR 2020).

13,711 training pairs, as Zamir et al. pass them on (MPRNet, CVPR 2021; their papers say 13,712,
and one was broken). Each test set is scored by itself, and papers average the five scores.
Test100 has 98 pairs in their copies and 100 in its original, Rain800. Rain100H and Rain100L are
those of the old release.

    datasets/Rain13K/train/   input/N.jpg and target/N.jpg
    datasets/Rain13K/test/    Test100, Rain100H, Rain100L, Test2800 and Test1200, each with
                              input/NAME and target/NAME
    python train.py rain13k
    python eval.py rain13k --test-sets Test100 Rain100L

The JDNet paper does not use it. The recipe is that of Rain1200: 150,001 steps.
"""

from dataclasses import replace
from pathlib import Path

from config.rain1200 import CONFIG as RAIN1200
from config.reference import Facts, Preset, Published
from config.schema import Folders

# Pairs of the copies, and Table 1 of Restormer (CVPR 2022): PSNR and SSIM of MPRNet and Restormer.
SETS: dict[str, tuple[tuple[int, ...], tuple[float, float], tuple[float, float]]] = {
    "Test100": ((98, 100), (30.27, 0.897), (32.00, 0.923)),
    "Rain100H": ((100,), (30.41, 0.890), (31.46, 0.904)),
    "Rain100L": ((100,), (36.40, 0.965), (38.99, 0.978)),
    "Test2800": ((2800,), (33.64, 0.938), (34.18, 0.944)),
    "Test1200": ((1200,), (32.91, 0.916), (33.19, 0.926)),
}

CONFIG = replace(
    RAIN1200,
    name="rain13k",
    data=Folders(
        dataset="rain13k",
        train_folder=Path("datasets/Rain13K/train"),
        test_folder=Path("datasets/Rain13K/test"),
        layout="two-folders",
        test_sets=tuple(SETS),
    ),
)

FACTS = Facts(
    train_pairs=13_711,
    test_pairs=(4298, 4300),
    sets={
        name: Facts(
            0,
            pairs,
            (Published("MPRNet", "y", *mprnet), Published("Restormer", "y", *restormer)),
        )
        for name, (pairs, mprnet, restormer) in SETS.items()
    },
)

PRESETS = (Preset(CONFIG, FACTS),)
