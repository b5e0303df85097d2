"""Check a dataset before training on it.

    python -m tools.check_data rain100l
    python -m tools.check_data rain100h --train-folder DATA/train --test-folder DATA/test

Compares the number of training and test pairs with the release. Reports images without a partner,
unreadable files, pairs of different sizes, browser duplicates like `7 (1).png`, and test
backgrounds among the training images. Reports halves or folders that look swapped: rain adds light,
so the rainy image should be the brighter one. Notes scenes that appear in several pairs; the old
Rain100L test set has nine, as released. Also tells whether the rain is one grey layer added to the
clean image, as train.py --exchange requires. Opens the folders of --clean and --layers.
"""

import hashlib
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from config import release_of
from config.cli import train_config
from config.schema import Folders
from data.layouts import PairFiles, find_pairs, read_pair
from data.rain_layers import open_clean, open_layers, rain_layer
from utils.errors import UserError, run_command

BROWSER_DUPLICATE = re.compile(r"\(\d+\)$|( - copy)$", re.IGNORECASE)


class Report(NamedTuple):
    """The findings in one set."""

    lines: list[str]  # to print
    problems: int
    clean: dict[str, list[str]]  # hash of a clean image -> names of its pairs


def check_set(
    title: str, files: list[PairFiles], alone: list[Path], expected: int | None
) -> Report:
    """Read and check every pair of a set."""
    count = f"{title}: {len(files)} pairs"
    problems: list[str] = []
    if expected and expected != len(files):
        problems.append(f"{expected} pairs expected for this release")
    problems += [f"without a partner of the same name: {file.name}" for file in alone]
    problems += [
        f"looks like a browser duplicate: {file.name}"
        for file in [*alone, *(f.rainy for f in files)]
        if BROWSER_DUPLICATE.search(file.stem)
    ]
    clean: dict[str, list[str]] = defaultdict(list)
    sizes: set[tuple[int, ...]] = set()
    swapped, additive = 0, 0
    for pair_files in files:
        try:
            pair = read_pair(pair_files)
        except UserError as error:
            problems.append(str(error))
            continue
        clean[hashlib.sha256(pair.clean.tobytes()).hexdigest()].append(pair.name)
        sizes.add(pair.clean.shape[1::-1])
        swapped += bool(pair.clean.mean() > pair.rainy.mean())
        additive += rain_layer(pair) is not None
    if sizes:
        count += ", " + " and ".join(f"{w}x{h}" for w, h in sorted(sizes)[:3])
        count += f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    repeated = [" = ".join(names) for names in clean.values() if len(names) > 1]
    notes = [f"{len(repeated)} scenes in several pairs: {', '.join(repeated)}"] if repeated else []
    can = "can" if files and additive == len(files) else "cannot"
    notes.append(
        f"rain is additive and grey in {additive} of {len(files)} pairs: --exchange {can} be used"
    )
    if swapped > len(files) / 2:
        problems.append(
            f"rainy and clean look swapped in {swapped} of {len(files)} pairs: change --order or "
            "rename the folders"
        )
    lines = [count, *(f"  {p}" for p in problems), *(f"  note: {n}" for n in notes)]
    return Report(lines, len(problems), clean)


def main(arguments: list[str]) -> None:
    """Run `python -m tools.check_data PRESET [flags]`, with the presets and flags of train.py.

    Raises:
        UserError: at the end, if there were any problems.
    """
    config = train_config(arguments or ["--help"], "python -m tools.check_data", __doc__)
    data = config.data
    if not isinstance(data, Folders):
        raise UserError(f"{config.name} is not a dataset on disk: nothing to check")
    facts = release_of(data)
    expected = (facts.train_pairs, facts.test_pairs) if facts else (None, None)
    reports = {}
    for title, folder, count in zip(
        ("train", "test"), (data.train_folder, data.test_folder), expected, strict=True
    ):
        if folder is not None:
            alone: list[Path] = []
            files = find_pairs(folder, data.layout, data.order, alone)
            reports[title] = check_set(f"{title} {folder}", files, alone, count)
    for report in reports.values():
        print("\n".join(report.lines))
    problems = sum(report.problems for report in reports.values())
    for folder in (*data.clean, *data.layers):
        try:
            found = (
                f"{len(open_clean(folder, config.training.patch_size))} clean images"
                if folder in data.clean
                else f"{len(open_layers(folder).images)} rain layers"
            )
            print(f"{folder}: {found}")
        except UserError as error:
            print(f"{folder}: {error}")
            problems += 1
    if len(reports) == 2:
        shared = reports["train"].clean.keys() & reports["test"].clean.keys()
        names = sorted(name for key in shared for name in reports["test"].clean[key])
        print(f"test backgrounds among the training images: {len(names)}")
        problems += bool(names)
    if problems:
        raise UserError(f"{problems} problems: see above")
    print("no problems")


if __name__ == "__main__":
    run_command(main)
