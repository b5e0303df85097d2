"""What CONTRIBUTING.md promises: a new network or dataset is one file and one line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.image import write_image

ROOT = Path(__file__).resolve().parents[1]

NETWORK = '''
"""A made-up network: it subtracts a constant from every channel."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from config.networks import NetworkConfig
from models.network import Network


@dataclass(frozen=True)
class VeilConfig(NetworkConfig):
    """Arguments."""

    name: ClassVar[str] = "veil"
    start: float = 0.1


class Veil(Network):
    """Subtract a constant."""

    def __init__(self, config: VeilConfig) -> None:
        super().__init__(config)
        self.shift = nn.Parameter(torch.full((3, 1, 1), config.start))

    def forward(self, rainy: Tensor) -> Tensor:
        return rainy - self.shift
'''

DATASET = '''
"""A made-up dataset."""

from dataclasses import replace
from pathlib import Path

from config.reference import Facts, Preset, Published
from config.rain100l import CONFIG as RAIN100L
from config.schema import Folders

DATA = Folders("puddles", Path("datasets/a"), Path("datasets/b"), layout="two-folders")
CONFIG = replace(RAIN100L, name="puddles", data=DATA)
PRESETS = (Preset(CONFIG, Facts(3, (1,), (Published("Somebody", "y", 30.0, 0.9),))),)
'''

TRAIN = """
from dataclasses import replace
from config import CONFIGS
from config.schema import Synthetic
from models import Derainer, load_network
from models.siblings.veil import VeilConfig
from train import train
tiny = replace(
    CONFIGS["synthetic"],
    network=VeilConfig(start=0.2),
    data=Synthetic(train_pairs=2, test_pairs=1, image_size=32),
    training=replace(CONFIGS["synthetic"].training, steps=2, batch_size=1, patch_size=16),
    machine=replace(CONFIGS["synthetic"].machine, device="cpu"),
    workers=0,
)
train(tiny)
print(Derainer("runs/synthetic/best.pt"), load_network("runs/synthetic/best.pt").config)
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the code, to be changed."""
    rooms = ("config", "data", "evaluation", "models", "report", "training", "utils", "tools")
    for room in rooms:
        for path in (ROOT / room).rglob("*"):
            if path.suffix in (".py", ".cpp", ".h", ".html", ".css", ".js"):
                copy = tmp_path / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(path.read_text())
    for name in ("train.py", "eval.py", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def python(house: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=house, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_a_network_is_a_file_and_a_line(house: Path) -> None:
    (house / "models" / "siblings" / "veil.py").write_text(NETWORK)
    registry = house / "models" / "registry.py"
    line = "    RESCANConfig: RESCAN,\n"
    text = registry.read_text()
    assert text.count(line) == 1
    imported = "from models.siblings.veil import Veil, VeilConfig\n"
    registry.write_text(
        text.replace(line, f"{line}    VeilConfig: Veil,\n").replace(
            "from utils.errors", f"{imported}from utils.errors"
        )
    )
    shown = python(house, "-c", TRAIN)
    assert shown.endswith("Veil (runs/synthetic/best.pt) VeilConfig(start=0.2)\n")


@pytest.mark.slow
def test_a_dataset_is_a_file_and_a_line(house: Path) -> None:
    (house / "config" / "puddles.py").write_text(DATASET)
    presets = house / "config" / "__init__.py"
    text = presets.read_text()
    assert text.count('"rain12",') == 1
    presets.write_text(text.replace('"rain12",', '"rain12", "puddles",'))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    for name, image in zip(("rainy", "clean"), pixels, strict=True):
        write_image(house / "datasets" / "b" / name / "1.png", image)
    weights = str(ROOT / "weights" / "jdnet-small-real.safetensors")
    shown = python(house, "eval.py", "puddles", "--weights", weights, "--device", "cpu")
    assert shown.startswith("puddles, 1 pairs\n")
    assert "Somebody" in shown
