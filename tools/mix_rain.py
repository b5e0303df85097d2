"""Make one training set of several kinds of rain, for networks that shall meet photographs.

    python tools/mix_rain.py datasets/mixed datasets/RainTrainL datasets/RainTrainH --modelled mixed
    python train.py rain100l --train-folder datasets/mixed --release mixed --held-out 24

Gathers the pairs of the folders, and puts modelled rain (data/synthetic.py) over the clean images
of the first: one more pair for each. The result has the rain100 layout. Pairs of one scene follow
each other, so that the first few that --held-out takes share theirs with few of the others.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.layouts import Layout, Order, PairFiles, find_pairs, read_pair
from data.pairs import Pair
from data.synthetic import RAINS, add_rain
from utils.errors import Parser, UserError, run_command
from utils.image import write_image


def mix(folders: list[list[PairFiles]], modelled: str | None, seed: int) -> Iterator[list[Pair]]:
    """The pairs of one scene after the other.

    Args:
        folders: the pairs of each folder.
        modelled: a rain of `data.synthetic.RAINS`, "mixed" for taking turns, None for none.
        seed: of the modelled rain, an integer >= 0.
    """
    scenes: dict[bytes, list[Pair]] = {}
    for folder in folders:
        for pair in map(read_pair, folder):
            scenes.setdefault(pair.clean.tobytes(), []).append(pair)
    kinds = [] if modelled is None else list(RAINS) if modelled == "mixed" else [modelled]
    for index, pairs in enumerate(scenes.values()):
        if kinds and index < len(folders[0]):
            random = np.random.default_rng([seed, index])
            kind, clean = kinds[index % len(kinds)], pairs[0].clean
            pairs.append(Pair(kind, add_rain(clean, RAINS[kind], random), clean))
        yield pairs


def main(arguments: list[str]) -> None:
    """Run `tools/mix_rain.py TARGET FOLDER ... [flags]`."""
    parser = Parser(
        "mix_rain.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("target", type=Path, help="folder to write, which must not exist")
    parser.add_argument("folders", type=Path, nargs="+", help="training sets of one layout")
    parser.add_argument("--layout", default="rain100", choices=get_args(Layout))
    parser.add_argument("--order", default="clean-rainy", choices=get_args(Order))
    parser.add_argument("--modelled", choices=[*RAINS, "mixed"], help="rain to add")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.target.exists():
        raise UserError(f"{options.target} exists: name a new folder, or delete that one")
    folders = [find_pairs(folder, options.layout, options.order) for folder in options.folders]
    partial = options.target.with_name(options.target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    number = 0
    for pairs in mix(folders, options.modelled, options.seed):
        for pair in pairs:
            number += 1
            write_image(partial / f"rain-{number}.png", pair.rainy)
            write_image(partial / f"norain-{number}.png", pair.clean)
    partial.rename(options.target)
    print(f"written: {number} pairs in {options.target}/")


if __name__ == "__main__":
    run_command(main)
