"""Score weights on a dataset: a table on screen, scores.csv and scores.json.

python eval.py rain100l --weights runs/rain100l/best.pt
"""

import csv
import hashlib
import io
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from config import schema
from config.cli import evaluate_config
from config.published import PUBLISHED
from config.schema import Folders, Synthetic, as_dict
from data.open import open_pairs
from data.pairs import Pairs
from models import NETWORKS, Network
from utils import checkpoint
from utils.errors import UserError, run_command
from utils.files import write_text
from utils.image import side_by_side, to_pixels, to_tensor, write_image
from utils.inference import derain
from utils.metrics import Convention, score
from utils.runtime import (
    choose_device,
    count_macs,
    count_parameters,
    keep_freed_memory,
    provenance,
    set_threads,
    synchronize,
)

STRIPS = 4  # pictures written beside the scores


@dataclass(frozen=True)
class PairScore:
    """One pair in one convention."""

    name: str
    convention: Convention
    rainy_psnr: float  # dB
    rainy_ssim: float
    psnr: float  # dB, of the derained image
    ssim: float


@dataclass(frozen=True)
class Scores:
    """All pairs of a dataset in every convention asked for."""

    rows: tuple[PairScore, ...]
    seconds: tuple[float, ...] = ()  # that each image took

    def mean(self, convention: Convention, field: str) -> float:
        """Mean of a `PairScore` field over the pairs, as every paper's table has it."""
        return fmean(getattr(row, field) for row in self.rows if row.convention == convention)

    @property
    def conventions(self) -> tuple[Convention, ...]:
        """The conventions, in the order asked for."""
        return tuple(dict.fromkeys(row.convention for row in self.rows))

    @property
    def pairs(self) -> int:
        """How many pairs were scored."""
        return len({row.name for row in self.rows})


def evaluate(
    network: nn.Module,
    pairs: Pairs,
    conventions: Sequence[Convention],
    device: torch.device,
    precision: torch.dtype = torch.float32,
    tile: int = 0,
    strips: Path | None = None,
) -> Scores:
    """Derain every pair's rainy image and score it, and the rainy image itself.

    Args:
        network: any network of `models`; put in evaluation mode here and back after.
        pairs: what to score.
        conventions: see `utils.metrics`.
        device: where the network is.
        precision: of the convolutions.
        tile: see `utils.inference.derain`.
        strips: folder for rainy | derained | clean pictures of the first pairs.

    Raises:
        UserError: an image is too small for a convention.
    """
    was_training = network.training
    network.eval()
    rows: list[PairScore] = []
    seconds: list[float] = []
    for index, pair in enumerate(tqdm(pairs, "scoring", disable=None, leave=False)):
        rainy, clean = to_tensor(pair.rainy).to(device), to_tensor(pair.clean).to(device)
        start = time.perf_counter()
        derained = derain(network, rainy, tile, precision)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        for convention in conventions:
            try:
                before = score(rainy, clean, convention)
                after = score(derained, clean, convention)
            except ValueError as error:
                raise UserError(f"cannot score {pair.name} in {convention}: {error}") from None
            values = (v.item() for v in (*before, *after))
            rows.append(PairScore(pair.name, convention, *values))
        if strips is not None and index < STRIPS:
            picture = side_by_side(pair.rainy, to_pixels(derained), pair.clean)
            write_image(strips / f"{pair.name}.png", picture)
    network.train(was_training)
    return Scores(tuple(rows), tuple(seconds))


def default_weights(name: str) -> Path:
    """One's own run of this name; where there is none, the weights that came with this code."""
    own = Path("runs") / name / "best.pt"
    return own if own.exists() else checkpoint.shipped(name) or own


def open_network(path: Path, fallback: schema.Network, device: torch.device) -> Network:
    """Build the network a weights file describes, and fill it.

    Args:
        path: weights, see `utils.checkpoint.load_weights`.
        fallback: the network of files that do not say which they hold.
        device: where to put it.

    Raises:
        UserError: the file cannot be read, or its network is unknown or does not fit.
    """
    weights = checkpoint.load_weights(path)
    name, arguments = weights.network or fallback.name, weights.arguments or asdict(fallback)
    if name not in NETWORKS:
        raise UserError(f"{path} holds a {name!r} network: this version has {', '.join(NETWORKS)}")
    try:
        network = NETWORKS[name](**arguments)
    except TypeError as error:
        raise UserError(f"{path} describes a {name} this version cannot build: {error}") from None
    checkpoint.load_state(network, weights.state, path)
    return network.to(device).eval()


def describe(path: Path) -> dict[str, Any]:
    """What scores must say of the weights: file, SHA-256, network and its arguments.

    Raises:
        UserError: as `utils.checkpoint.load_weights`.
    """
    weights = checkpoint.load_weights(path)
    return {
        "weights": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "network": weights.network,
        "arguments": weights.arguments,
    }


def table(scores: Scores, data: Folders | Synthetic, method: str) -> str:
    """The scores as aligned text, published ones in rows of their own.

    Args:
        scores: what was measured.
        data: what it was measured on.
        method: names the derained row.
    """
    if isinstance(data, Folders):
        published = PUBLISHED.get((data.dataset, data.release, scores.pairs), ())
    else:
        published = ()
    names = ["rainy input", method, *(row.method for row in published)]
    first = max(map(len, names)) + 2
    lines = [
        title(data, scores.pairs),
        "",
        " " * first + "".join(f"{c:>18}" for c in scores.conventions),
        " " * first + "      PSNR    SSIM" * len(scores.conventions),
    ]
    for name, prefix in (("rainy input", "rainy_"), (method, "")):
        cells = [
            f"{scores.mean(c, prefix + 'psnr'):>10.2f}{scores.mean(c, prefix + 'ssim'):>8.4f}"
            for c in scores.conventions
        ]
        lines.append(f"{name:<{first}}" + "".join(cells))
    if published:
        lines.append("published, each in its own convention:")
    for row in published:
        cell = f"{row.psnr:>10.2f}{row.ssim:>8g}"
        cells = [cell if c == row.convention else " " * 18 for c in scores.conventions]
        if row.convention not in scores.conventions:
            cells = [f"{cell.lstrip()} in {row.convention}"]
        lines.append((f"{row.method:<{first}}" + "".join(cells)).rstrip())
    return "\n".join(lines)


def comparison(
    results: Sequence[Scores],
    networks: Sequence[Network],
    files: Sequence[Path],
    data: Folders | Synthetic,
    size: tuple[int, int],
) -> str:
    """Several networks on one dataset, with what they cost: a Markdown table.

    Args:
        results: what was measured, one for each network.
        networks: the networks.
        files: their weights.
        data: what it was measured on.
        size: height and width that the multiply-adds are counted for.
    """
    height, width = size
    conventions = results[0].conventions
    first = results[0]
    rainy = (
        f"{first.mean(c, 'rainy_psnr'):.2f} / {first.mean(c, 'rainy_ssim'):.4f}"
        for c in conventions
    )
    header = ["network", "weights", "parameters", f"GMAC {width}x{height}", "s an image"]
    rows = [[*header, *conventions], ["rainy input", "", "", "", "", *rainy]]
    for scores, network, file in zip(results, networks, files, strict=True):
        cells = (
            f"{scores.mean(c, 'psnr'):.2f} / {scores.mean(c, 'ssim'):.4f}" for c in conventions
        )
        rows.append(
            [
                type(network).__name__,
                str(file),
                f"{count_parameters(network):,}",
                f"{count_macs(network, height, width) / 1e9:.1f}",
                f"{median(scores.seconds):.2f}",
                *cells,
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([f"{title(data, first.pairs)}: PSNR / SSIM", "", lines[0], rule, *lines[1:]])


def title(data: Folders | Synthetic, pairs: int) -> str:
    """What a table was measured on."""
    if isinstance(data, Folders):
        return f"{data.dataset}, {data.release} release, {pairs} pairs"
    return f"synthetic, {data.heaviness} rain, {pairs} pairs"


def write_scores(folder: Path, scores: Scores, about: dict[str, Any]) -> None:
    """Write scores.csv, a line for each pair and convention, and scores.json, means and `about`."""
    rows = io.StringIO(newline="")
    writer = csv.DictWriter(rows, fieldnames=list(PairScore.__dataclass_fields__))
    writer.writeheader()
    writer.writerows(asdict(row) for row in scores.rows)
    write_text(folder / "scores.csv", rows.getvalue())
    fields = ("rainy_psnr", "rainy_ssim", "psnr", "ssim")
    means = {c: {f: _json_number(scores.mean(c, f)) for f in fields} for c in scores.conventions}
    summary = {"pairs": scores.pairs, "mean": means, **about}
    write_text(folder / "scores.json", json.dumps(summary, indent=2) + "\n")


def _name_of(file: Path) -> str:
    """One word for a path: runs/a/best.pt is runs-a-best."""
    return "-".join(part for part in file.with_suffix("").parts if part.strip("/.\\"))


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON has no inf


def main(arguments: list[str]) -> None:
    """Run `eval.py [PRESET] [flags]`."""
    keep_freed_memory()
    settings, preset = evaluate_config(arguments)
    data = settings.data
    set_threads(settings.machine.threads)
    device = choose_device(settings.machine.device)
    output = settings.output or Path("scores") / settings.name
    given = settings.weights or default_weights(settings.name)
    files = [f / "best.pt" if f.is_dir() else f for f in settings.compare] or [given]
    about = [describe(file) for file in files]
    for file, description in zip(files, about, strict=True):
        if description["network"] and settings.network != preset.network:
            raise UserError(f"{file} says which network it holds: leave out the network's flags")
    networks = [open_network(file, settings.network, device) for file in files]
    pairs = open_pairs(data, "test")[: settings.limit]

    origin = {"data": as_dict(settings)["data"], "provenance": provenance()}
    results = []
    for file, description, network in zip(files, about, networks, strict=True):
        folder = output / _name_of(file) if settings.compare else output
        scores = evaluate(
            network,
            pairs,
            settings.conventions,
            device,
            getattr(torch, settings.machine.precision),
            settings.tile,
            folder / "strips",
        )
        write_scores(folder, scores, {**description, **origin})
        results.append(scores)
    if settings.compare:
        print(comparison(results, networks, files, data, pairs[0].clean.shape[:2]))
    else:
        print(table(results[0], data, f"{type(networks[0]).__name__} ({files[0]})"))
    print(f"\nwritten: {output}/ (scores.csv, scores.json, strips/)")


if __name__ == "__main__":
    run_command(main)
