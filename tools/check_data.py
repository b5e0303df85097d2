"""Check a dataset before training on it: list all that would stop or spoil the training.

    python -m tools.check_data rain100l
    python -m tools.check_data rain100h --train-folder DATA/train --test-folder DATA/test

Compares the number of training and test pairs with those of the dataset. Reports images without a
partner, unreadable and 16-bit files, pairs of different sizes, pairs of equal images, browser
duplicates like `7 (1).png`, images smaller than a patch or than the window of SSIM, test
backgrounds among the training images, and files of --clean and --layers that cannot be used.
Reports halves or folders that look swapped: rain adds light, so the rainy image should be the
brighter one. Notes scenes that appear in several pairs; the old Rain100L test set has nine, as
released. Also tells whether the rain is one grey layer added to the clean image, as train.py
--exchange requires. Finally it opens the data as train.py does, with the same flags.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config import facts_of
from config.cli import train_config
from config.schema import Config, Folders
from data.files import PairFiles, PairList, read_pair
from data.layouts import find_pairs, list_in_order, test_sets
from data.pairs import refuse_smaller
from data.rain_layers import extract_layers, holds_pairs, rain_layer, read_layer, read_scene
from training.run import open_data
from utils.errors import UserError, run_command
from utils.metrics import WINDOW

SHOWN = 10  # names in one line

BROWSER_DUPLICATE = re.compile(r"\(\d+\)$|( - copy)$", re.IGNORECASE)


class Report(NamedTuple):
    """The findings in one set."""

    lines: list[str]  # to print
    problems: int
    clean: dict[str, list[str]]  # hash of a clean image -> names of its pairs


class Use(NamedTuple):
    """What a set is used for."""

    patch: int | None = None  # side of the training patches; None for a test set
    validation: int = 0  # number of pairs, the first ones, that are scored and not trained on
    exchanged: bool = False  # whether the rain of the training pairs is


def check_set(
    title: str, files: PairList, alone: list[Path], expected: Sequence[int], use: Use
) -> Report:
    """Read and check every pair of a set."""
    count = f"{title}: {len(files)} pairs"
    problems: list[str] = []
    if expected and len(files) not in expected:
        problems.append(f"{' or '.join(map(str, expected))} pairs expected for this dataset")
    problems += [f"without a partner of the same name: {file.name}" for file in alone]
    problems += [
        f"looks like a browser duplicate: {file.name}"
        for file in [*alone, *(f.rainy for f in files)]
        if BROWSER_DUPLICATE.search(file.stem)
    ]
    clean: dict[str, list[str]] = defaultdict(list)
    sizes: set[tuple[int, ...]] = set()
    held: set[str] = set()  # hashes of the validation scenes
    equal, small, unscored, fixed, trained = [], [], [], [], 0
    swapped, additive = 0, 0
    for index, pair_files in enumerate(files):
        try:
            pair = read_pair(pair_files)
        except UserError as error:
            problems.append(str(error))
            continue
        scene = hashlib.sha256(pair.clean.tobytes()).hexdigest()
        clean[scene].append(pair.name)
        height, width = pair.clean.shape[:2]
        sizes.add((width, height))
        sized = f"{pair.name} ({width}x{height})"
        has_layer = rain_layer(pair) is not None
        if np.array_equal(pair.rainy, pair.clean):
            equal.append(pair.name)
        if use.patch is None or index < use.validation:
            held.add(scene)
            unscored += [sized] * (min(height, width) < WINDOW)
        elif scene not in held:
            trained += 1
            small += [sized] * (min(height, width) < use.patch)
            fixed += [pair.name] * (use.exchanged and not has_layer)
        swapped += bool(pair.clean.mean() > pair.rainy.mean())
        additive += has_layer
    if sizes:
        count += ", " + " and ".join(f"{w}x{h}" for w, h in sorted(sizes)[:3])
        count += f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    repeated = [" = ".join(names) for names in clean.values() if len(names) > 1]
    notes = [f"{len(repeated)} scenes in several pairs: {', '.join(repeated)}"] if repeated else []
    can = "can" if files and additive == len(files) else "cannot"
    notes.append(
        f"rain is additive and grey in {additive} of {len(files)} pairs: --exchange {can} be used"
    )
    if equal:
        problems.append(f"both images are equal in {_some(equal, files)}")
    if small:
        problems.append(
            f"smaller than a patch of {use.patch}x{use.patch} pixels in {_some(small, files)}; "
            "lower --patch-size or remove them"
        )
    if unscored:
        problems.append(
            f"smaller than {WINDOW}x{WINDOW} pixels, which cannot be scored, in "
            f"{_some(unscored, files)}"
        )
    if fixed:
        problems.append(
            "rain that cannot be exchanged, because it is not one grey layer added to the clean "
            f"image, in {_some(fixed, files)}; set --exchange 0"
        )
    if use.patch is not None and use.validation >= len(files) > 0:
        problems.append(
            f"--validation must be below the number of training pairs, {len(files)}, got "
            f"{use.validation}"
        )
    elif held and use.patch is not None and not trained and sizes:
        problems.append(
            "all readable training pairs show scenes of the validation pairs: lower --validation"
        )
    if swapped > len(files) / 2:
        problems.append(
            f"rainy and clean look swapped in {swapped} of {len(files)} pairs: change --order or "
            "rename the folders"
        )
    lines = [count, *(f"  {p}" for p in problems), *(f"  note: {n}" for n in notes)]
    return Report(lines, len(problems), clean)


def _some(names: Sequence[str], files: Sequence[PairFiles]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} of {len(files)} pairs: {', '.join(names[:SHOWN])}{more}"


def check_files(
    folder: Path, kind: str, read: Callable[[PairFiles | Path], object], held: int | None = None
) -> Report:
    """Read and check every file of a folder of --clean or --layers.

    Args:
        folder: of Rain100 pairs, or of single images.
        kind: what the files are, in the plural.
        read: reads a pair or an image, or raises a `UserError`.
        held: number of files held out for validation, if any are; others must be left.
    """
    problems, count = [], 0
    try:
        files: Sequence[PairFiles | Path] = (
            find_pairs(folder, "rain100") if holds_pairs(folder) else list_in_order(folder)
        )
    except UserError as error:
        return Report([f"{folder}: {error}"], 1, {})
    for file in files:
        try:
            read(file)
            count += 1
        except UserError as error:
            problems.append(str(error))
    if held is not None and held >= len(files):
        problems.append(f"--validation must be below the number of {kind}, got {held}")
    return Report([f"{folder}: {count} {kind}", *(f"  {p}" for p in problems)], len(problems), {})


def check_extra(config: Config, data: Folders) -> list[Report]:
    """Check the folders of --clean and --layers."""
    side = config.training.patch_size
    held = config.training.validation if config.rain.exchange else None

    def scene(file: PairFiles | Path) -> None:
        if isinstance(file, Path):
            read_scene(file, side)
        else:
            refuse_smaller(read_pair(file).clean, side, file.clean)

    def layer(file: PairFiles | Path) -> None:
        if isinstance(file, Path):
            read_layer(file)
        else:
            extract_layers([read_pair(file)], "remove it, or the folder from --layers")

    return [
        *(check_files(folder, "clean images", scene) for folder in data.clean),
        *(check_files(folder, "rain layers", layer, held) for folder in data.layers),
    ]


def main(arguments: list[str]) -> None:
    """Run `python -m tools.check_data PRESET [flags]`, with the presets and flags of train.py.

    Raises:
        UserError: at the end, if there were any problems.
    """
    config = train_config(arguments or ["--help"], "python -m tools.check_data", __doc__)
    data, recipe = config.data, config.training
    if not isinstance(data, Folders):
        raise UserError(f"{config.name} is not a dataset on disk: nothing to check")
    facts = facts_of(data)
    sets: dict[str, tuple[Path, Sequence[int], Use]] = {}
    if data.train_folder is not None:
        train = Use(recipe.patch_size, recipe.validation, exchanged=config.rain.exchange > 0)
        sets["train"] = data.train_folder, (facts.train_pairs,) if facts else (), train
    for name, folder in test_sets(data).items():
        known = facts.sets.get(name, facts) if facts else None
        sets[f"test {name}".rstrip()] = folder, known.test_pairs if known else (), Use()
    reports = {}
    for title, (folder, expected, use) in sets.items():
        alone: list[Path] = []
        try:
            files = find_pairs(folder, data.layout, data.order, alone)
            reports[title] = check_set(f"{title} {folder}", files, alone, expected, use)
        except UserError as error:
            reports[title] = Report([f"{title} {folder}: {error}"], 1, {})
    found = [*reports.values(), *check_extra(config, data)]
    for report in found:
        print("\n".join(report.lines))
    problems = sum(report.problems for report in found)
    if "train" in reports and len(reports) > 1:
        trained = reports.pop("train").clean
        tested = [item for report in reports.values() for item in report.clean.items()]
        shared = [name for scene, names in tested if scene in trained for name in names]
        print(f"test backgrounds among the training images: {len(shared)}")
        problems += bool(shared)
    if not problems and data.train_folder is not None:
        try:
            open_data(config)
        except UserError as error:  # for example flags that do not fit together
            print(f"train.py would stop: {error}")
            problems += 1
    if problems:
        raise UserError(f"{problems} problems: see above")
    print("no problems")


if __name__ == "__main__":
    run_command(main)
