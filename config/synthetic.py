"""The default preset: photographs bundled with scikit-image, with modelled rain.

    python train.py                     # no download; a few minutes on two CPU cores
    python eval.py synthetic

A JDNet with 2 joint units. It gains at least 3 dB over the rainy input on unseen scenes. It only
shows that everything works and does not generalise to other rain.
"""

from config.networks import JDNetConfig
from config.reference import Preset
from config.schema import Config, Monitoring, Synthetic, Training

CONFIG = Config(
    name="synthetic",
    data=Synthetic(),
    network=JDNetConfig(units=2),
    training=Training(steps=1000, lr=2e-3, batch_size=8, schedule="cosine"),
    monitoring=Monitoring(log_every=50, eval_every=500, eval_pairs=4),
    workers=0,
)

PRESETS = (Preset(CONFIG),)
