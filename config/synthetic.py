"""The built-in default: photographs bundled with scikit-image under modelled rain.

    python train.py                     # no download; a few minutes on two CPU cores
    python eval.py synthetic

A JDNet of 2 joint units, 3 dB or more above the rainy input on scenes it never saw. It shows that
everything works; it is no model for other rain.
"""

from config.schema import Config, Dataset, JDNetConfig, Monitoring, Synthetic, Training

CONFIG = Config(
    name="synthetic",
    data=Synthetic(),
    network=JDNetConfig(units=2),
    training=Training(steps=1000, lr=2e-3, batch_size=8, schedule="cosine"),
    monitoring=Monitoring(log_every=50, eval_every=500, eval_pairs=4),
    workers=0,
)

DATASET = Dataset(CONFIG)
