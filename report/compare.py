"""The page of a comparison: one table, scores per image, regions, a slider between any two methods.

It is made from what `eval.py --compare` has written: compared.json, and scores.csv, scores.json and
strips/ of each method. Pairs with a strip get images.
"""

import heapq
import math
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.methods import Comparison, read_comparison
from evaluation.scores import STRIPS
from report.template import write_page
from utils.errors import UserError
from utils.files import is_inside
from utils.image import GAP, Pixels, read_image, write_image

SIDE = 64  # of a region in pixels
DIFFERENT = 4  # number of regions where the methods differ most, one per pair


class Scene(NamedTuple):
    """The images of one pair, uint8 [H, W, 3]."""

    place: int  # among the pairs
    name: str
    rainy: Pixels
    results: tuple[Pixels, ...]  # one for each method
    clean: Pixels  # [H, W, 4] with a mask: transparent where the ground truth is unknown

    @property
    def versions(self) -> tuple[Pixels, ...]:
        """All images, in the order of the labels."""
        return (self.rainy, *self.results, self.clean)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where the ground truth is known, [H, W]."""
        shape = self.clean.shape[:2]
        return self.clean[..., 3] > 0 if self.clean.shape[2] == 4 else np.ones(shape, np.bool_)


class Region(NamedTuple):
    """A square of a scene, and how bad or how different it is."""

    value: float  # mean squared error or difference
    x: int
    y: int
    side: int
    scene: Scene


class Version(NamedTuple):
    """One image of a figure."""

    url: str
    label: str
    caption: str = ""


class Figure(NamedTuple):
    """All versions of a pair or of a region."""

    name: str
    caption: str
    size: tuple[int, int]  # width and height
    versions: tuple[Version, ...]


class Sheet(NamedTuple):
    """The scores of all pairs in one convention: a name, and PSNR and SSIM of every method."""

    convention: str
    rows: list[tuple[str, list[float]]]


def write_comparison_report(folder: Path) -> Path:
    """Write the page of a comparison, and return its path.

    Args:
        folder: has compared.json, and a folder of each method.

    Raises:
        UserError: results are missing or damaged, or the page would be written among them.
    """
    comparison, summaries = read_comparison(folder)
    for method in comparison.methods:
        if is_inside(folder / method.folder / "scores.csv", folder / "report"):
            raise UserError(f"{folder / 'report'} has the scores of a method: rename the method")
    labels = ["rainy", *method_labels(comparison), "ground truth"]
    names = list(dict.fromkeys(row.name for row in comparison.scores[0].rows))
    strips = min(summary.get("strips", STRIPS) for summary in summaries)  # others may be older
    figures: list[Figure] = []
    worst: list[Region | None] = [None for _ in comparison.methods]
    different: list[tuple[float, int, Region]] = []  # a heap
    for index, name in enumerate(names[:strips]):
        scene = _read_scene(folder, comparison, index, name)
        if scene is None:
            continue
        figures.append(_figure(folder, scene, labels))
        for i, region in enumerate(_worst_regions(scene)):
            known = worst[i]
            worst[i] = region if known is None or region.value > known.value else known
        if found := _most_different(scene):
            heapq.heappush(different, (found.value, -index, found))
            if len(different) > DIFFERENT:
                heapq.heappop(different)
    about = {key: summaries[0][key] for key in ("data", "provenance") if key in summaries[0]}
    weights = ("weights", "sha256", "network", "arguments")
    return write_page(
        folder,
        "compare.html",
        title=comparison.titles[-1],
        tables=comparison.tables(),
        texts={"Markdown": comparison.markdown(), "LaTeX": comparison.latex()},
        sheets=[_sheet(comparison, c, names) for c in comparison.scores[0].conventions],
        labels=labels,
        figures=figures,
        worst=[
            (label, _crop(folder, f"worst-{i}", region, labels))
            for i, (label, region) in enumerate(zip(labels[1:], worst, strict=False))
            if region is not None and region.value > 0
        ],
        different=[
            _crop(folder, f"different-{i}", region, labels)
            for i, (_, _, region) in enumerate(sorted(different, key=lambda d: d[:2], reverse=True))
        ],
        about={
            label: {key: summary.get(key) for key in weights}
            for label, summary in zip(labels[1:], summaries, strict=False)
        }
        | about,
    )


def method_labels(comparison: Comparison) -> list[str]:
    """A different label for each method: its name, or with its weights or its folder."""
    methods = comparison.methods
    choices = [
        [method.name for method in methods],
        [f"{method.name} {Path(method.weights).stem}" for method in methods],
        [f"{method.name} {method.folder}" for method in methods],
    ]
    return next((labels for labels in choices if len(set(labels)) == len(labels)), choices[-1])


def _sheet(comparison: Comparison, convention: str, names: list[str]) -> Sheet:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for index, scores in enumerate(comparison.scores):
        for row in scores.rows:
            if row.convention == convention and row.name in found:
                if not index:
                    found[row.name].append((row.rainy_psnr, row.rainy_ssim))
                found[row.name].append((row.psnr, row.ssim))
    rows = []
    for name, pairs in found.items():
        psnrs, ssims = zip(*pairs, strict=True)
        rows.append((name, [*psnrs, *ssims]))
    return Sheet(convention, rows)


def _read_scene(folder: Path, comparison: Comparison, index: int, name: str) -> Scene | None:
    """The images of a pair from the strips of all methods; None if one has no strip of it."""
    files = [folder / method.folder / "strips" / f"{name}.png" for method in comparison.methods]
    if not all(file.is_file() for file in files):
        return None
    strips = [read_image(file) for file in files]
    width = (strips[0].shape[1] - 2 * GAP) // 3
    if any(strip.shape != strips[0].shape for strip in strips):
        raise UserError(f"{files[0]} and those of the other methods differ in size: run eval.py")
    results = tuple(strip[:, width + GAP :][:, :width, :3] for strip in strips)
    return Scene(index, name, strips[0][:, :width, :3], results, strips[0][:, -width:])


def _figure(folder: Path, scene: Scene, labels: list[str]) -> Figure:
    versions = []
    for i, (image, label) in enumerate(zip(scene.versions, labels, strict=True)):
        url = f"{scene.place:04}-{i}.png"
        write_image(folder / "report" / url, image)
        versions.append(Version(url, label))
    height, width = scene.rainy.shape[:2]
    return Figure(scene.name, "", (width, height), tuple(versions))


def _worst_regions(scene: Scene) -> list[Region]:
    """The region of each method with the largest squared error."""
    clean = scene.clean[..., :3]
    return [_largest(scene, _squares(image, clean) * scene.known) for image in scene.results]


def _most_different(scene: Scene) -> Region | None:
    """The region with the largest squared difference between any two methods."""
    pairs = combinations(scene.results, 2)
    regions = [_largest(scene, _squares(one, other)) for one, other in pairs]
    region = max(regions, key=lambda region: region.value, default=None)
    return region if region and region.value > 0 else None


def _squares(one: Pixels, other: Pixels) -> NDArray[np.float32]:
    """Squared difference, mean over the channels, [H, W]."""
    return np.square(one.astype(np.float32) - other).mean(axis=2)


def _largest(scene: Scene, values: NDArray[np.float32]) -> Region:
    """The square with the largest mean of `values` [H, W]."""
    side = min(SIDE, *values.shape)
    means = cv2.boxFilter(values, cv2.CV_32F, (side, side), anchor=(0, 0))
    means = means[: values.shape[0] - side + 1, : values.shape[1] - side + 1]
    y, x = divmod(int(means.argmax()), means.shape[1])
    return Region(float(means[y, x]), x, y, side, scene)


def _crop(folder: Path, start: str, region: Region, labels: list[str]) -> Figure:
    """Write the versions of a region; each result's caption is its PSNR there."""
    scene, side = region.scene, region.side
    rows, columns = slice(region.y, region.y + side), slice(region.x, region.x + side)
    clean, known = scene.clean[rows, columns], scene.known[rows, columns]
    versions = []
    for i, (image, label) in enumerate(zip(scene.versions, labels, strict=True)):
        url = f"{start}-{i}.png"
        crop = image[rows, columns]
        write_image(folder / "report" / url, crop)
        psnr = _psnr(_squares(crop[..., :3], clean[..., :3])[known])
        versions.append(Version(url, label, psnr if i < len(labels) - 1 else ""))
    caption = f"{side} × {side} pixels at {region.x}, {region.y}"  # noqa: RUF001
    return Figure(scene.name, caption, (side, side), tuple(versions))


def _psnr(squares: NDArray[np.float32]) -> str:
    if not squares.size:
        return ""
    mean = float(squares.mean())
    return f"{10 * math.log10(255**2 / mean):.1f} dB" if mean else "equal"
