"""Presets: one module per dataset, plus `small` and `siblings` for other networks. No torch."""

from pathlib import Path

from config import rain12, rain100h, rain100l, rain1200, real, siblings, small, synthetic
from config.schema import Config, Folders, Release, Synthetic

DATASETS = (
    synthetic.DATASET,
    rain100h.DATASET,
    rain100l.DATASET,
    rain12.DATASET,
    rain1200.DATASET,
    real.DATASET,
)

CONFIGS: dict[str, Config] = {
    config.name: config
    for config in (*(dataset.config for dataset in DATASETS), *small.SMALL, *siblings.SIBLINGS)
}

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


def release_of(data: Folders | Synthetic) -> Release | None:
    """Reference facts of the release that `data` names, or None if unknown.

    Images in another layout than the default release's are of another release, or other images.
    """
    if isinstance(data, Folders):
        for dataset in DATASETS:
            own = dataset.config.data
            if dataset.config.name == data.dataset and isinstance(own, Folders):
                other = data.release == own.release and data.layout != own.layout
                return None if other else dataset.releases.get(data.release)
    return None


def shipped_weights(name: str) -> Path | None:
    """Path of the weights shipped for a preset, relative to the working directory if possible."""
    here = Path.cwd()
    for dataset in DATASETS:
        if dataset.config.name == name.removesuffix("-small") and dataset.weights:
            path = WEIGHTS / dataset.weights
            return path.relative_to(here) if path.is_relative_to(here) else path
    return None


def default_weights(name: str) -> Path:
    """best.pt of the user's own run of this preset if it exists, else the shipped weights."""
    own = Path("runs") / name / "best.pt"
    return own if own.exists() else shipped_weights(name) or own
