"""Shared fixtures: random images, a Rain100 folder, a tiny run. All tests run on one thread."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from config import CONFIGS
from config.networks import JDNetConfig
from config.schema import Config, Synthetic
from utils.image import Pixels, write_image

torch.set_num_threads(1)  # several threads slow down a suite of small tensors


@pytest.fixture
def picture() -> Callable[..., Pixels]:
    """Function that returns random RGB pixels, the same for the same seed."""

    def make(height: int = 24, width: int = 32, seed: int = 0) -> Pixels:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture
def rain100_folder(tmp_path: Path, picture: Callable[..., Pixels]) -> Path:
    """Three pairs with the official Rain100 names; 10 must sort after 9."""
    folder = tmp_path / "rain100"
    for number in (1, 9, 10):
        write_image(folder / f"norain-{number}.png", picture(seed=number))
        write_image(folder / f"rain-{number}.png", picture(seed=100 + number))
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Config:
    """A run that takes seconds: one small unit, patches of 16 pixels; always on the CPU."""
    config = CONFIGS["synthetic"]
    return replace(
        config,
        name="tiny",
        data=Synthetic(train_pairs=6, test_pairs=2, image_size=32),
        network=JDNetConfig(units=1, channels=16, scales=2),
        training=replace(config.training, steps=6, batch_size=2, patch_size=16),
        monitoring=replace(config.monitoring, log_every=1, eval_every=3, save_minutes=0),
        machine=replace(config.machine, device="cpu"),
        run=tmp_path / "run",
    )
