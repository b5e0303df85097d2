"""What is known about a preset: counts and published results of its dataset, and weights."""

from dataclasses import dataclass, field
from typing import NamedTuple

from config.schema import Config
from utils.conventions import Convention


class Published(NamedTuple):
    """One row of a published table, comparable with ours only in the same convention."""

    method: str
    convention: Convention
    psnr: float  # dB
    ssim: float


@dataclass(frozen=True)
class Facts:
    """Reference facts of a dataset, or of one of its test sets."""

    train_pairs: int
    test_pairs: tuple[int, ...]
    """Numbers of pairs of the copies that exist; `published` holds for the first."""
    published: tuple[Published, ...] = ()
    release: str = ""
    """Which release it is, if there are several under one name."""
    sets: dict[str, "Facts"] = field(default_factory=dict)
    """Facts of each of `Folders.test_sets`."""


@dataclass(frozen=True)
class Preset:
    """A config that the command line knows by its name, and what is known about it."""

    config: Config
    facts: Facts | None = None
    """Of the dataset that has the name of the preset."""
    weights: str | None = None
    """File under weights/ with a network of this preset."""
