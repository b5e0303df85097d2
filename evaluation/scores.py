"""Derain and score pairs: rows, means, and the files of the scores."""

import csv
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from data.pairs import Pair, Pairs
from utils import checkpoint
from utils.conventions import Convention
from utils.errors import UserError
from utils.files import write_text
from utils.image import Pixels, hstack, to_pixels, to_tensor, write_image
from utils.inference import derain
from utils.metrics import score
from utils.runtime import synchronize

STRIPS = 4  # pictures written beside the scores

Viewer = Callable[[int, Pair, Pixels], None]
"""Called with the number of a pair, the pair, and its derained image, uint8 [H, W, 3]."""


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
    view: Viewer | None = None,
) -> Scores:
    """Derain every pair's rainy image and score it, and the rainy image itself.

    Args:
        network: any network of `models`; put in evaluation mode here and back after.
        pairs: what to score.
        conventions: see `utils.metrics`.
        device: where the network is.
        precision: of the convolutions.
        tile: see `utils.inference.derain`.
        view: sees every derained image.

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
        if view is not None:
            view(index, pair, to_pixels(derained))
    network.train(was_training)
    return Scores(tuple(rows), tuple(seconds))


def strip_writer(folder: Path) -> Viewer:
    """A viewer that writes rainy | derained | clean pictures of the first pairs to a folder."""

    def view(index: int, pair: Pair, derained: Pixels) -> None:
        if index < STRIPS:
            write_image(folder / f"{pair.name}.png", hstack(pair.rainy, derained, pair.clean))

    return view


def describe_weights(path: Path) -> dict[str, Any]:
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


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON has no inf
