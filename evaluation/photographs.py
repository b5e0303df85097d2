"""Scores of photographs without ground truth, before and after deraining."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from tqdm import tqdm

from evaluation.methods import DerainedFolder
from models import Derainer
from utils.files import write_csv
from utils.image import Pixels, read_image, to_pixels, to_tensor
from utils.reference_free import Quality, quality

Measured = Mapping[str, Sequence[Quality]]
"""The scores of all images, for each method."""


class Row(NamedTuple):
    """The scores of one image."""

    name: str
    method: str
    niqe: float
    brisque: float
    piqe: float


def measure(pixels: Pixels) -> Quality:
    """Score an image [H, W, 3 or 4] of 8 or 16 bits, without its alpha channel."""
    return quality(to_pixels(to_tensor(pixels)))


def evaluate_photographs(
    derainers: Sequence[Derainer | DerainedFolder], files: Sequence[Path]
) -> Measured:
    """Derain photographs with every method, and score them before and after.

    Raises:
        UserError: a file is unreadable.
    """
    methods = ["rainy input", *map(str, derainers)]
    results: dict[str, list[Quality]] = {method: [] for method in methods}
    for file in tqdm(files, "scoring", disable=None, leave=False):
        rainy = read_image(file)
        results["rainy input"].append(measure(rainy))
        for derain in derainers:
            if isinstance(derain, DerainedFolder):
                image = to_pixels(derain.image(file.stem))
            else:
                image = derain(rainy)
            results[str(derain)].append(measure(image))
    return results


def quality_table(results: Measured, title: str) -> str:
    """Format the means as aligned text."""
    first = max(map(len, results)) + 2
    heading = "".join(f"{name.upper():>10}" for name in Quality._fields)
    lines = [f"{title}: lower is better", "", " " * first + heading]
    for method, scores in results.items():
        means = (fmean(values) for values in zip(*scores, strict=True))
        lines.append(f"{method:<{first}}" + "".join(f"{mean:>10.2f}" for mean in means))
    return "\n".join(lines).replace(" nan", "   -")


def write_quality(file: Path, results: Measured, names: Sequence[str]) -> None:
    """Write one line for each image and method."""
    rows = [
        Row(name, method, *scores)
        for method, qualities in results.items()
        for name, scores in zip(names, qualities, strict=True)
    ]
    write_csv(file, [Row._fields, *rows])
