"""The sibling networks on Rain100H and Rain100L, each with its own paper's or released recipe.

    python train.py rain100l-prenet
    python eval.py rain100l --compare runs/rain100l/best.pt runs/rain100l-prenet/best.pt

Data: see `rain100h.py` and `rain100l.py`. Differences from the released recipes:

    DCSFN    one more step, as in JDNet's loop
    DANet    the released recipe trains on Rain13K, a mix of several datasets
    PReNet   patches at random positions, as many as on the released grid (15 per image and pass);
             on Rain100L the released code adds the mirror image of every image, while here half of
             the patches are mirrored and the passes are doubled
"""

from dataclasses import replace

from config.networks import DANetConfig, DCSFNConfig, NetworkConfig, PReNetConfig, RESCANConfig
from config.rain100h import CONFIG as RAIN100H
from config.rain100l import CONFIG as RAIN100L
from config.reference import Preset
from config.schema import Training

RECIPES: dict[str, tuple[NetworkConfig, Training]] = {
    "dcsfn": (DCSFNConfig(), Training(batch_size=24, passes=800, augment="jitter", clip=None)),
    "danet": (
        DANetConfig(),
        Training(
            loss="danet",
            batch_size=16,
            patch_size=256,
            augment="eight",
            lr=2e-4,
            milestones=tuple(epoch / 1000 for epoch in range(80, 1000, 80)),
            decay=0.8,
            clip=None,
        ),
    ),
    "prenet": (
        PReNetConfig(),
        Training(
            batch_size=18,
            patch_size=100,
            passes=100 * 15,
            lr=1e-3,
            milestones=(0.3, 0.5, 0.8),
            decay=0.2,
            clip=None,
        ),
    ),
    "rescan": (
        RESCANConfig(),
        Training(
            loss="mse-stages",
            batch_size=64,
            steps=20_000,
            lr=5e-3,
            milestones=(15_000 / 20_000, 17_500 / 20_000),
            clip=None,
        ),
    ),
}
MIRRORED = replace(RECIPES["prenet"][1], augment="flip", passes=2 * 100 * 15)

PRESETS = tuple(
    Preset(
        replace(
            dataset,
            name=f"{dataset.name}-{name}",
            network=network,
            training=MIRRORED if (dataset, name) == (RAIN100L, "prenet") else recipe,
        )
    )
    for dataset in (RAIN100H, RAIN100L)
    for name, (network, recipe) in RECIPES.items()
)
