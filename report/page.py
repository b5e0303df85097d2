"""A page to open in a browser: sortable table, before/after sliders, gains, provenance.

It is made from what lies in an output folder, of eval.py (scores.json, scores.csv, strips/) or of
show.py (derained.jsonl and the results), and written to report/ in it. The page contains its style
and script, and its images lie next to it. It needs no server and no network. The page of several
methods is made by report/compare.py.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import cv2
import numpy as np

from config.schema import Folders, Synthetic
from evaluation.methods import NAME as COMPARED
from evaluation.scores import STRIPS, PairScore, read_scores
from evaluation.tables import published_rows, title
from report.compare import write_comparison_report
from report.template import write_page
from utils.errors import UserError
from utils.files import folded, is_inside
from utils.image import GAP, Pixels, read_image, write_image
from utils.photo import png, record
from utils.photo.decode import read_photograph
from utils.photo.encode import write_photograph
from utils.photo.tags import Tags

PREVIEW = 1600  # longest side in pixels of the previews of photographs


class Row(NamedTuple):
    """One row of the table and, if there are two images to compare, one slider."""

    name: str
    values: tuple[float, ...]  # one per column
    caption: str
    link: str = ""  # URL of the full-size result
    before: str = ""  # URL; empty without a slider
    after: str = ""
    size: tuple[int, int] = (0, 0)  # width and height of the slider's images


def write_report(folder: Path) -> Path:
    """Write the page for an output folder of eval.py, train.py or show.py, and return its path.

    If several of them have written there, it is the page of the last one.

    Raises:
        UserError: the folder has no results, or they are damaged.
    """
    writers = {
        record.NAME: write_photo_report,
        COMPARED: write_comparison_report,
        "scores.json": write_score_report,
    }
    found = [name for name in writers if (folder / name).is_file()]
    if not found:
        raise UserError(
            f"none of {', '.join(writers)} in {folder}: expected an output folder of eval.py or "
            "show.py"
        )
    newest = max(found, key=lambda name: (folder / name).stat().st_mtime_ns)
    return writers[newest](folder)


def write_score_report(folder: Path) -> Path:
    """Write the page of an evaluation, worst gain first in the first convention; return its path.

    Pairs with a strip get a slider.

    Args:
        folder: has scores.json and scores.csv of one network, and strips/.

    Raises:
        UserError: see `evaluation.scores.read_scores`.
    """
    scores, summary = read_scores(folder)
    data = _dataset(summary.get("data") or summary["config"]["data"])
    convention = scores.conventions[0]
    pairs = [row for row in scores.rows if row.convention == convention]
    strips = summary.get("strips", STRIPS)  # others in the folder may be of an earlier run
    rows = sorted(
        (_score_row(folder, i, pair, has_strip=i < strips) for i, pair in enumerate(pairs)),
        key=lambda row: -math.inf if math.isnan(row.values[0]) else row.values[0],
    )
    gains = [row.values[0] for row in rows]
    published = published_rows(data, scores)
    conventions = (*scores.conventions, *(row.convention for row in published))
    ensemble = ", ensemble" if summary.get("ensemble") else ""
    about = {key: summary[key] for key in ("data", "provenance") if key in summary}
    weights = {key: summary[key] for key in ("weights", "sha256", "network", "arguments")}
    return write_page(
        folder,
        "report.html",
        title=title(data, scores.pairs),
        convention=convention,
        conventions=list(dict.fromkeys(conventions)),
        scores=scores,
        method=f"{summary['network'] or 'network'} ({summary['weights']}{ensemble})",
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
        about={"weights": weights, **about},
    )


def _dataset(data: Mapping[str, Any]) -> Folders | Synthetic:
    """The fields of a dataset in scores.json that decide its title and its published results."""
    if "dataset" not in data:
        return Synthetic(heaviness=data["heaviness"])
    return Folders(
        data["dataset"],
        train_folder=None,
        test_folder=Path(data["test_folder"]),
        layout=data["layout"],
    )


def _score_row(folder: Path, index: int, pair: PairScore, has_strip: bool) -> Row:
    gain = 0.0 if pair.psnr == pair.rainy_psnr else pair.psnr - pair.rainy_psnr  # both may be inf
    values = (gain, pair.rainy_psnr, pair.psnr, pair.rainy_ssim, pair.ssim)
    caption = f"{pair.rainy_psnr:.2f} → {pair.psnr:.2f} dB ({gain:+.2f})"
    strip = folder / "strips" / f"{pair.name}.png"
    if not has_strip or not strip.is_file():
        return Row(pair.name, values, caption)
    pixels = read_image(strip)
    height, width = pixels.shape[0], (pixels.shape[1] - 2 * GAP) // 3
    before, after = f"{index:04}-rainy.png", f"{index:04}-derained.png"
    write_image(folder / "report" / before, pixels[:, :width])
    write_image(folder / "report" / after, pixels[:, width + GAP :][:, :width])
    return Row(pair.name, values, caption, after, before, after, (width, height))


def check_photo_report(folder: Path, sources: Sequence[Path], targets: Sequence[Path] = ()) -> None:
    """Refuse a page that could overwrite inputs or results.

    Raises:
        UserError: one of them lies in the folder of the page.
    """
    report = folder / "report"
    if inside := [source for source in sources if is_inside(source, report)]:
        raise UserError(
            f"the report would be written into {report}, which contains the input {inside[0]}: "
            "choose another output folder"
        )
    start = folded(report / "_").removesuffix("_")
    if inside := [target for target in targets if folded(target).startswith(start)]:
        raise UserError(
            f"the report would be written into {report}, as would the result {inside[0]}: leave "
            "out --report, or rename the input folder"
        )


def write_photo_report(folder: Path) -> Path:
    """Write the page of derained photographs and videos, and return its path.

    Photographs whose source still exists get a slider with previews.

    Args:
        folder: has the results and their record.

    Raises:
        UserError: see `utils.photo.record.read` and `check_photo_report`.
    """
    results, runs = record.read(folder)
    check_photo_report(folder, [result.source for result in results])
    used = sorted({result.run for result in results})
    several = len(used) > 1
    return write_page(
        folder,
        "report.html",
        title=f"{len(results)} derained file{'s' * (len(results) != 1)}",
        columns={
            "width": "{:.0f}",
            "height": "{:.0f}",
            "scale": "{:.2g}",
            "seconds": "{:.2f}",
        },
        rows=[_photo_row(folder, index, result, several) for index, result in enumerate(results)],
        about={
            heading + f", run {run + 1}" * several: table
            for run in used
            for heading, table in runs[run].items()
        },
    )


def _photo_row(folder: Path, index: int, result: record.Result, several: bool) -> Row:
    name, (width, height) = result.source.name, result.size
    link = quote(os.fsencode("../" + result.target.relative_to(folder).as_posix()))
    values = (width, height, result.scale, result.seconds)
    run = f", run {result.run + 1}" * several
    scale = f", derained at 1/{result.scale:.2g}" * (result.scale > 1)
    frames = f", {result.frames} frames together" * (result.frames > 1)
    time = f"{result.seconds:.1f} s"
    caption = f"{width} × {height} pixels, {time}{scale}{frames}{run}"  # noqa: RUF001
    try:
        photographs = [read_photograph(path) for path in (result.source, result.target)]
    except UserError:  # a video, or a source that was moved
        return Row(name, values, caption, link)
    names = f"{index:04}-rainy.jpg", f"{index:04}-derained.jpg"
    for file, (pixels, tags) in zip(names, photographs, strict=True):
        # These keep the colours; other tags may tell where the photograph was taken.
        profile = None if tags.grey else tags.profile
        colours = tuple(chunk for chunk in tags.chunks if chunk[0] in png.COLOUR)
        preview = _preview(pixels)
        about = Tags(profile=profile, chunks=colours)
        write_photograph(folder / "report" / file, preview, about)
    return Row(name, values, caption, link, *names, (preview.shape[1], preview.shape[0]))


def _preview(pixels: Pixels) -> Pixels:
    """8 bits, without alpha, at most `PREVIEW` pixels wide and high."""
    colours = pixels[..., :3] if pixels.dtype == np.uint8 else (pixels[..., :3] >> 8).astype("u1")
    height, width = colours.shape[:2]
    scale = min(1.0, PREVIEW / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(colours, size, interpolation=cv2.INTER_AREA)


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
