"""Score a folder of derained images, from any method, against the ground truth, or without one.

    python -m tools.score derained/ datasets/Rain100L
    python -m tools.score derained/ datasets/Rain100L --conventions y rgb --csv scores.csv
    python -m tools.score derained/ datasets/SPA/real_test_1000.txt
    python -m tools.score derained/

Images are matched by the common part of their names: rain-7, norain-7, 7x2 and 7_GT are all 7.
Several may belong to one ground truth, as 901_1 and 901_14 to 901. In a Rain100 folder, the clean
images (norain-N.png) are the ground truth. A list file gives the ground truth of each rainy image.
Ground truths without a derained image are skipped; the printed count shows how many were used. One
folder alone gets NIQE, BRISQUE and PIQE, which need no ground truth.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from tqdm import tqdm

from config.cli import tool_options
from data.layouts import find_pairs, find_partners, ground_truths, with_ground_truth
from evaluation.photographs import measure, quality_table
from utils.conventions import CONVENTIONS, Convention
from utils.errors import UserError, run_command
from utils.files import refuse_overwriting, write_csv
from utils.image import list_images, read_image, to_tensor
from utils.metrics import score
from utils.reference_free import Quality


@dataclass(frozen=True)
class Options:
    """What to score."""

    folders: tuple[Path, ...]
    """DERAINED [CLEAN]: a folder of images, and the folder or list file of their ground truths."""
    conventions: tuple[Convention, ...] = CONVENTIONS
    """Metric conventions, defined in docs/metrics.md."""
    csv: Path | None = None
    """Also write one line per image and convention to this file."""


class Row(NamedTuple):
    """The scores of one image in one convention."""

    name: str
    convention: Convention
    psnr: float  # dB
    ssim: float


def main(arguments: list[str]) -> None:
    """Run `python -m tools.score DERAINED [CLEAN]`."""
    options = tool_options(Options, arguments, "python -m tools.score", __doc__)
    if len(options.folders) not in (1, 2):
        raise UserError(f"expected DERAINED [CLEAN], got {len(options.folders)} folders")
    if len(options.folders) == 1:
        score_alone(options.folders[0], options.csv)
        return
    folder, truths = options.folders
    derained = list_images(folder)
    if truths.is_file():
        listed = find_pairs(truths, "list")
        clean = [files.clean for files in listed]
        pairs = with_ground_truth(derained, listed)
    else:
        clean = ground_truths(truths)
        pairs = find_partners(derained, clean)
    for file in (file for files in pairs for file in (files.rainy, files.clean)):
        if options.csv is not None:
            refuse_overwriting(file, options.csv)
    rows = []
    for files in pairs:
        image, truth = (to_tensor(read_image(f)) for f in (files.rainy, files.clean))
        for convention in options.conventions:
            try:
                result = score(image, truth, convention)
            except ValueError as error:
                raise UserError(f"cannot score {files.rainy} in {convention}: {error}") from None
            rows.append(Row(files.rainy.name, convention, *(v.item() for v in result)))

    used = len({files.clean for files in pairs})
    count = f"{len(pairs)} images" if used < len(pairs) else f"{used} of {len(set(clean))} images"
    print(f"{folder} against {truths}, {count}\n")
    print(f"{'':<12}      PSNR    SSIM")
    for convention in options.conventions:
        psnr = fmean(row.psnr for row in rows if row.convention == convention)
        ssim = fmean(row.ssim for row in rows if row.convention == convention)
        print(f"{convention:<12}{psnr:>10.2f}{ssim:>8.4f}")
    if options.csv is not None:
        write_rows(options.csv, [Row._fields, *rows])


def score_alone(folder: Path, table: Path | None) -> None:
    """Score images without ground truth; print the means and write one line per image.

    Raises:
        UserError: the folder is missing, or an image is unreadable.
    """
    files = list_images(folder)
    for file in files:
        if table is not None:
            refuse_overwriting(file, table)
    scores = [
        measure(read_image(file)) for file in tqdm(files, "scoring", disable=None, leave=False)
    ]
    print(quality_table({str(folder): scores}, f"{len(files)} images without ground truth"))
    if table is not None:
        rows = [(file.name, *values) for file, values in zip(files, scores, strict=True)]
        write_rows(table, [("name", *Quality._fields), *rows])


def write_rows(file: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file and say so."""
    write_csv(file, rows)
    print(f"\nwritten: {file}")


if __name__ == "__main__":
    run_command(main)
