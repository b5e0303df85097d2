"""Rainy photographs without ground truth.

    datasets/real/   any images
    python show.py datasets/real

Nothing to train on and nothing to score: train.py and eval.py say so. Networks trained on one
synthetic set remove little real rain; tools/mix_rain.py makes a training set of several.
"""

from pathlib import Path

from config.schema import Config, Photographs

CONFIG = Config(name="real", data=Photographs(folder=Path("datasets/real")))
