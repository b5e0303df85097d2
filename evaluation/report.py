"""A report to open in a browser: sortable table, before/after sliders, gains, provenance.

The folder is self-contained: index.html contains its style and script, and the images lie next to
it. It needs no server and no network.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import cv2
import jinja2
import numpy as np
from PIL import Image

from config.schema import Folders, Synthetic
from data.pairs import Pair
from evaluation.scores import PairScore, Scores, Viewer
from evaluation.tables import published_rows, title
from utils.errors import UserError
from utils.files import write_text
from utils.image import Pixels, write_image
from utils.photo.decode import read_photograph
from utils.photo.encode import write_photograph
from utils.photo.tags import Tags
from utils.photo.video import Frames, is_video

PREVIEW = 1600  # longest side in pixels of the previews of photographs


class Derained(NamedTuple):
    """One file that show.py has written."""

    source: Path
    target: Path
    seconds: float
    """NaN if an earlier run has written it."""


class Row(NamedTuple):
    """One row of the table and, unless it is a video, one slider."""

    name: str
    values: tuple[float, ...]  # one per column
    caption: str
    link: str  # URL of the full-size result
    before: str = ""  # URL; empty without a slider
    after: str = ""
    size: tuple[int, int] = (0, 0)  # width and height of the slider's images


def image_writer(folder: Path, also: Viewer) -> Viewer:
    """A viewer that writes the images of the report as PNG, then calls `also`."""

    def view(index: int, pair: Pair, derained: Pixels) -> None:
        write_image(folder / f"{index:04}-rainy.png", pair.rainy)
        write_image(folder / f"{index:04}-derained.png", derained)
        also(index, pair, derained)

    return view


def write_score_report(
    folder: Path,
    scores: Scores,
    data: Folders | Synthetic,
    method: str,
    about: Mapping[str, Mapping[str, Any]],
) -> Path:
    """Write the report of an evaluation, worst gain first, and return its page.

    Args:
        folder: folder that `image_writer` has filled.
        scores: scores of one network; the first convention is that of the rows and gains.
        data: the dataset.
        method: label of the network.
        about: tables at the foot, by heading.
    """
    convention = scores.conventions[0]
    pairs = [row for row in scores.rows if row.convention == convention]
    rows = sorted(
        (_score_row(folder, index, pair) for index, pair in enumerate(pairs)),
        key=lambda row: -math.inf if math.isnan(row.values[0]) else row.values[0],
    )
    gains = [row.values[0] for row in rows]
    published = published_rows(data, scores.pairs)
    conventions = (*scores.conventions, *(row.convention for row in published))
    return _write(
        folder,
        title=title(data, scores.pairs),
        convention=convention,
        conventions=list(dict.fromkeys(conventions)),
        scores=scores,
        method=method,
        published=published,
        histogram=_histogram([gain for gain in gains if math.isfinite(gain)]),
        mean_gain=sum(gains) / len(gains),
        columns={
            "gain, dB": "{:+.2f}",
            "rainy PSNR": "{:.2f}",
            "derained PSNR": "{:.2f}",
            "rainy SSIM": "{:.4f}",
            "derained SSIM": "{:.4f}",
        },
        rows=rows,
        about=about,
    )


def _score_row(folder: Path, index: int, pair: PairScore) -> Row:
    before, after = f"{index:04}-rainy.png", f"{index:04}-derained.png"
    gain = 0.0 if pair.psnr == pair.rainy_psnr else pair.psnr - pair.rainy_psnr  # both may be inf
    values = (gain, pair.rainy_psnr, pair.psnr, pair.rainy_ssim, pair.ssim)
    caption = f"{pair.rainy_psnr:.2f} → {pair.psnr:.2f} dB ({gain:+.2f})"
    return Row(pair.name, values, caption, after, before, after, _size(folder / after))


def check_photo_report(folder: Path, sources: Sequence[Path], flag: str = "--report") -> None:
    """Refuse a report, or what another flag writes, that could overwrite its inputs.

    Raises:
        UserError: an input lies in the folder of the report.
    """
    if inside := [s for s in sources if s.resolve().is_relative_to(folder.resolve())]:
        raise UserError(
            f"{flag} writes into {folder}, which contains the input {inside[0]}: choose another "
            "--output"
        )


def write_photo_report(
    folder: Path, files: Sequence[Derained], about: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Write the report of derained photographs and videos, and return its page.

    Args:
        folder: its folder; the results are linked relative to it.
        files: what was derained.
        about: tables at the foot, by heading.
    """
    return _write(
        folder,
        title=f"{len(files)} derained file{'s' * (len(files) != 1)}",
        columns={"width": "{:.0f}", "height": "{:.0f}", "seconds": "{:.2f}"},
        rows=[_photo_row(folder, index, file) for index, file in enumerate(files)],
        about=about,
    )


def _photo_row(folder: Path, index: int, file: Derained) -> Row:
    link = quote(os.fsencode(Path(os.path.relpath(file.target, folder)).as_posix()))
    if is_video(file.source):
        height, width = next(iter(Frames(file.target))).shape[:2]
        return Row(file.source.name, (width, height, file.seconds), "", link)
    width, height = _size(file.target)
    names = f"{index:04}-rainy.jpg", f"{index:04}-derained.jpg"
    for name, path in zip(names, (file.source, file.target), strict=True):
        pixels, tags = read_photograph(path)
        # The profile keeps the colours; other tags may tell where the photograph was taken.
        profile = None if tags.grey else tags.profile
        write_photograph(folder / name, _preview(pixels), Tags(profile=profile))
    seconds = "" if math.isnan(file.seconds) else f", {file.seconds:.1f} s"
    caption = f"{width} × {height} pixels{seconds}"  # noqa: RUF001
    values = (width, height, file.seconds)
    return Row(file.source.name, values, caption, link, *names, _size(folder / names[0]))


def _preview(pixels: Pixels) -> Pixels:
    """8 bits, without alpha, at most `PREVIEW` pixels wide and high."""
    colours = pixels[..., :3] if pixels.dtype == np.uint8 else (pixels[..., :3] >> 8).astype("u1")
    height, width = colours.shape[:2]
    scale = min(1.0, PREVIEW / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(colours, size, interpolation=cv2.INTER_AREA)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as file:
        return file.size


def _histogram(gains: Sequence[float]) -> str:
    """SVG of the gains in the page's colours; the same gains give the same bytes."""
    if not gains:
        return ""
    import matplotlib  # takes a second, which only this chart should cost
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    ink, bar = "#000001", "#000002"  # replaced by the page's colours, which SVG takes from CSS
    stream = io.StringIO()
    with matplotlib.rc_context(
        {
            "svg.hashsalt": "report",
            "svg.fonttype": "none",
            "axes.edgecolor": ink,
            "axes.labelcolor": ink,
            "xtick.color": ink,
            "ytick.color": ink,
        }
    ):
        figure = Figure(figsize=(4.8, 2.2), layout="constrained")
        axes = figure.subplots()
        edges = MaxNLocator(30, steps=[1, 2, 5, 10]).tick_values(min(gains), max(gains))
        axes.hist(gains, edges, color=bar, rwidth=0.9)
        axes.set(xlabel="gain in PSNR, dB", ylabel="images")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue().replace(ink, "currentColor").replace(bar, "var(--accent)")
    return svg[svg.index("<svg") :]


def _write(folder: Path, **page: Any) -> Path:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    path = folder / "index.html"
    write_text(path, environment.get_template("report.html").render(page))
    return path
