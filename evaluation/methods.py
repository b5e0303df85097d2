"""Methods side by side on one dataset: networks, and folders of images that others derained."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from data.layouts import find_partners
from evaluation.scores import Scores, read_scores
from models import Derainer
from utils.errors import UserError
from utils.files import write_text
from utils.image import list_images, read_image, to_tensor
from utils.runtime import count_macs, count_parameters

NAME = "compared.json"


class DerainedFolder:
    """The images that some method has derained, found by the names of the pairs.

    Args:
        name: of the method.
        folder: of the images.
        names: of the pairs to score; SET/NAME of several test sets.

    Raises:
        UserError: the folder is missing, lacks an image, or has two of one name.
    """

    def __init__(self, name: str, folder: Path, names: Iterable[str]) -> None:
        self.name, self.folder = name, folder
        self.device = torch.device("cpu")
        self.files: dict[Path, Path] = {}
        wanted: dict[Path, list[Path]] = {}  # of each test set, whose images lie in its subfolder
        for rainy in map(_rainy, names):
            wanted.setdefault(rainy.parent, []).append(rainy)
        for part, images in wanted.items():
            try:
                partners = find_partners(images, list_images(folder / part))
            except UserError as error:
                raise UserError(f"{name}={folder}: {error}") from None
            self.files |= {files.rainy: files.clean for files in partners}

    def image(self, name: str) -> Tensor:
        """The image of one pair, float32 [3, H, W] in [0, 1].

        Raises:
            UserError: it is unreadable.
        """
        return to_tensor(read_image(self.files[_rainy(name)]))

    def describe(self) -> dict[str, Any]:
        """What result files say about the method, as of a network."""
        return {"weights": str(self.folder), "sha256": "", "network": self.name, "arguments": {}}

    def __str__(self) -> str:
        """Name of the method and its folder."""
        return f"{self.name} ({self.folder})"


def _rainy(name: str) -> Path:
    return Path(f"{name}.png")  # so that the end of a name like a_0.01 is no suffix


@dataclass(frozen=True)
class Method:
    """One row of a comparison; None where a folder of images does not tell."""

    folder: str  # of its scores and strips, in the folder of the comparison
    name: str
    weights: str
    parameters: int | None
    macs: float | None  # multiply-adds for one image of the comparison's size
    seconds: float | None  # per image, median


@dataclass(frozen=True)
class Comparison:
    """The scores and the costs of several methods on one dataset."""

    titles: tuple[str, ...]  # of the table of each test set; of several, then of their average
    size: tuple[int, int]  # width and height for which multiply-adds are counted
    methods: tuple[Method, ...]
    scores: tuple[Scores, ...]  # one for each method

    def tables(self) -> dict[str, list[list[str]]]:
        """The cells by title: a heading, the rainy input, and a row for each method."""
        sets = [scores.sets for scores in self.scores]
        parts = [[each[name] for each in sets] for name in sets[0]]
        parts += [list(self.scores)] * (len(parts) > 1)
        return {title: self._table(p) for title, p in zip(self.titles, parts, strict=True)}

    def _table(self, results: Sequence[Scores]) -> list[list[str]]:
        first, conventions = results[0], results[0].conventions
        width, height = self.size
        rainy = [cell(first, c, "rainy_") for c in conventions]
        heading = ["network", "weights", "parameters", f"GMAC {width}x{height}", "s per image"]
        rows = [[*heading, *conventions], ["rainy input", "", "", "", "", *rainy]]
        for method, scores in zip(self.methods, results, strict=True):
            costs = (
                "" if method.parameters is None else f"{method.parameters:,}",
                "" if method.macs is None else f"{method.macs / 1e9:.1f}",
                "" if method.seconds is None else f"{method.seconds:.2f}",
            )
            cells = (cell(scores, c) for c in conventions)
            rows.append([method.name, method.weights, *costs, *cells])
        return rows

    def markdown(self) -> str:
        """The tables in Markdown, each below its title."""
        parts = []
        for title, rows in self.tables().items():
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines = [
                "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
                for row in rows
            ]
            rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
            parts.append("\n".join([f"{title}: PSNR / SSIM", "", lines[0], rule, *lines[1:]]))
        return "\n\n".join(parts)

    def latex(self) -> str:
        """The tables in LaTeX, for the package booktabs."""
        return "\n\n".join(_latex(title, rows) for title, rows in self.tables().items())

    def write(self, folder: Path) -> None:
        """Write compared.json, which `read_comparison` reads with the scores of the methods."""
        methods = [asdict(method) for method in self.methods]
        about = {"titles": self.titles, "size": self.size, "methods": methods}
        write_text(folder / NAME, json.dumps(about, indent=2) + "\n")


def cell(scores: Scores, convention: Any, prefix: str = "") -> str:
    """Mean PSNR and SSIM; SSIM is blank where no window of it lies in the masks."""
    psnr, ssim = (scores.mean(convention, f"{prefix}{field}") for field in ("psnr", "ssim"))
    return f"{psnr:.2f} / {ssim:.4f}".replace("nan", "-")


def describe(
    derain: Derainer | DerainedFolder, folder: str, scores: Scores, size: tuple[int, int]
) -> Method:
    """The row of a method; `size` is width and height, `folder` that of its scores."""
    if isinstance(derain, DerainedFolder):
        return Method(folder, derain.name, str(derain.folder), None, None, None)
    network, (width, height) = derain.network, size
    return Method(
        folder,
        type(network).__name__,
        str(derain.weights.path if derain.weights else ""),
        count_parameters(network),
        count_macs(network, height, width),
        median(scores.seconds),
    )


def read_comparison(folder: Path) -> tuple[Comparison, Sequence[dict[str, Any]]]:
    """Read what `Comparison.write` has written, and the scores.json of each method.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        about = json.loads((folder / NAME).read_text("utf-8"))
        methods = tuple(Method(**method) for method in about["methods"])
        titles, (width, height) = tuple(about["titles"]), about["size"]
    except OSError as error:
        raise UserError(f"no comparison in {folder}: {NAME}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{folder / NAME} is damaged: {error}") from None
    read = [read_scores(folder / method.folder) for method in methods]
    comparison = Comparison(titles, (width, height), methods, tuple(scores for scores, _ in read))
    return comparison, [summary for _, summary in read]


def _latex(title: str, rows: Sequence[Sequence[str]]) -> str:
    heading, *rest = (" & ".join(map(_escape, row)) + r" \\" for row in rows)
    return "\n".join(
        [
            f"% {title}: PSNR / SSIM",
            rf"\begin{{tabular}}{{ll{'r' * (len(rows[0]) - 2)}}}",
            r"\toprule",
            heading,
            r"\midrule",
            *rest,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
