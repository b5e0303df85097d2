"""Image pairs, from folders or generated. Only `data.open` builds data from a config."""

from data.files import FolderPairs
from data.layouts import find_pairs
from data.pairs import Pair, Pairs
from data.patches import Patches
from data.synthetic import SyntheticPairs

__all__ = [
    "FolderPairs",
    "Pair",
    "Pairs",
    "Patches",
    "SyntheticPairs",
    "find_pairs",
]
