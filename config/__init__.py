"""Presets. A module of MODULES defines those of a dataset or of some networks. No torch."""

from importlib import import_module
from pathlib import Path

from config.reference import Facts, Preset
from config.schema import Config, Folders, Synthetic
from utils.errors import UserError

MODULES = (
    *("synthetic", "rain100h", "rain100l", "rain12", "rain200h", "rain200l"),
    *("rain1200", "rain1400", "rain13k", "spa", "raincityscapes", "real", "real_pairs"),
    *("small", "siblings"),
)

PRESETS: dict[str, Preset] = {
    preset.config.name: preset
    for module in MODULES
    for preset in import_module(f"config.{module}").PRESETS
}
CONFIGS: dict[str, Config] = {name: preset.config for name, preset in PRESETS.items()}

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


def facts_of(data: Folders | Synthetic) -> Facts | None:
    """Reference facts of the dataset that `data` names, or None if unknown."""
    if not isinstance(data, Folders) or data.dataset not in PRESETS:
        return None
    return PRESETS[data.dataset].facts


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
