"""Presets. A module of MODULES defines those of a dataset or of some networks. No torch."""

from importlib import import_module
from pathlib import Path

from config.reference import Preset, Release
from config.schema import Config, Folders, Synthetic
from utils.errors import UserError

MODULES = (
    "synthetic",
    "rain100h",
    "rain100l",
    "rain12",
    "rain1200",
    "real",
    "real_pairs",
    "small",
    "siblings",
)

PRESETS: dict[str, Preset] = {
    preset.config.name: preset
    for module in MODULES
    for preset in import_module(f"config.{module}").PRESETS
}
CONFIGS: dict[str, Config] = {name: preset.config for name, preset in PRESETS.items()}

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


def release_of(data: Folders | Synthetic) -> Release | None:
    """Reference facts of the release that `data` names, or None if unknown.

    Images in another layout than the default release's are of another release, or other images.
    """
    if not isinstance(data, Folders) or data.dataset not in PRESETS:
        return None
    preset = PRESETS[data.dataset]
    own = preset.config.data
    if isinstance(own, Folders) and data.release == own.release and data.layout != own.layout:
        return None
    return preset.releases.get(data.release)


def shipped_weights(name: str) -> Path | None:
    """Path of the weights shipped for a preset, relative to the working directory if possible."""
    preset = PRESETS.get(name)
    if preset is None or preset.weights is None:
        return None
    path, here = WEIGHTS / preset.weights, Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def default_weights(name: str) -> Path:
    """best.pt of the user's own run of this preset if it exists, else the shipped weights.

    Raises:
        UserError: there are neither.
    """
    own = Path("runs") / name / "best.pt"
    if weights := own if own.exists() else shipped_weights(name):
        return weights
    shipped = [other for other, preset in PRESETS.items() if preset.weights]
    similar = [other for other in shipped if other.startswith(f"{name}-")] or shipped
    raise UserError(
        f"no weights for {name}: expected {own} after training, or --weights; weights are included "
        f"for {', '.join(similar)}"
    )
