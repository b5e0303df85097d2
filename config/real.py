"""Real photographs: a network for all kinds of rain, trained on every available layer and scene.

Some patches get drops near the camera, some no rain at all. Some scenes are lightened, and some get
bars, wires, grids or text, so that the network does not take every thin line for rain.

    datasets/RainTrainL/   pairs of light rain                        (see rain100l.py)
    datasets/RainTrainH/   pairs of heavy rain, used for their layers (see rain100h.py)
    datasets/streaks/      grey rain layers on black, any names       (for example rendered)
    datasets/clean/        images without rain, any names
    datasets/Rain100L/     test set
    python train.py real --precision auto
    python show.py photos/

Photographs have no ground truth, so judge the results by eye. The score on Rain100L only shows how
well the network still removes light rain.
"""

from pathlib import Path

from config.networks import JDNetConfig
from config.reference import Preset
from config.schema import Camera, Config, Folders, Rain
from config.small import RECIPE

CONFIG = Config(
    name="real",
    network=JDNetConfig(units=8),
    data=Folders(
        dataset="rain100l",
        train_folder=Path("datasets/RainTrainL"),
        test_folder=Path("datasets/Rain100L"),
        clean=(Path("datasets/clean"),),
        layers=(
            Path("datasets/RainTrainH"),
            Path("datasets/streaks"),
        ),
    ),
    rain=Rain(
        exchange=0.6,
        modelled=0.15,
        layer_size=(0.3, 1.5),
        layer_gain=(0.3, 1.3),
        layer_angle=30.0,
        structures=0.4,
        bright=0.3,
        drops=0.2,
        dry=0.2,
    ),
    camera=Camera(blur=1.0, veil=0.2, noise=4.0, jpeg=40),
    training=RECIPE,
)

PRESETS = (Preset(CONFIG, weights="jdnet-small-real.safetensors"),)
