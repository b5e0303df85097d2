"""What is known about a preset: its releases, published results, and weights."""

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
class Release:
    """Reference facts of one release of a dataset."""

    train_pairs: int
    test_pairs: int
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Preset:
    """A config that the command line knows by its name, and what is known about it."""

    config: Config
    releases: dict[str, Release] = field(default_factory=dict)
    """Reference facts of the dataset, keyed by `Folders.release`."""
    weights: str | None = None
    """File under weights/ with a network of this preset."""
