"""Score a folder of derained images, from any method, against the ground truth.

    python -m tools.score derained/ datasets/Rain100L
    python -m tools.score derained/ datasets/Rain100L --conventions y rgb --csv scores.csv

    python -m tools.score derained/ datasets/SPA/real_test_1000.txt

Images are matched by the common part of their names: rain-7, norain-7, 7x2 and 7_GT are all 7.
Several may belong to one ground truth, as 901_1 and 901_14 to 901. In a Rain100 folder, the clean
images (norain-N.png) are the ground truth. A list file gives the ground truth of each rainy image.
Ground truths without a derained image are skipped; the printed count shows how many were used.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from config.cli import tool_options
from data.layouts import find_pairs, find_partners, ground_truths, with_ground_truth
from utils.conventions import CONVENTIONS, Convention
from utils.errors import UserError, run_command
from utils.files import refuse_overwriting, write_text
from utils.image import list_images, read_image, to_tensor
from utils.metrics import score


@dataclass(frozen=True)
class Options:
    """What to score."""

    derained: Path
    """Folder of images to score."""
    clean: Path
    """Folder of ground truths, or a list file of the layout list."""
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
    """Run `python -m tools.score DERAINED CLEAN`."""
    options = tool_options(Options, arguments, "python -m tools.score", __doc__)
    derained = list_images(options.derained)
    if options.clean.is_file():
        listed = find_pairs(options.clean, "list")
        clean = [files.clean for files in listed]
        pairs = with_ground_truth(derained, listed)
    else:
        clean = ground_truths(options.clean)
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
    print(f"{options.derained} against {options.clean}, {count}\n")
    print(f"{'':<12}      PSNR    SSIM")
    for convention in options.conventions:
        psnr = fmean(row.psnr for row in rows if row.convention == convention)
        ssim = fmean(row.ssim for row in rows if row.convention == convention)
        print(f"{convention:<12}{psnr:>10.2f}{ssim:>8.4f}")
    if options.csv is not None:
        table = io.StringIO(newline="")
        csv.writer(table).writerows([Row._fields, *rows])
        write_text(options.csv, table.getvalue())
        print(f"\nwritten: {options.csv}")


if __name__ == "__main__":
    run_command(main)
