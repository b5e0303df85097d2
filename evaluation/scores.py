"""Derain and score image pairs, and write the scores to files."""

import csv
import io
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.pairs import Pair, Pairs
from models import Derainer
from utils import ranks
from utils.conventions import Convention
from utils.errors import UserError
from utils.files import write_csv, write_text, writing
from utils.image import Pixels, hstack, to_pixels, to_tensor, write_image
from utils.metrics import score
from utils.runtime import synchronize

STRIPS = 4  # number of strips written with the scores
SECONDS_PER_LINE = 60  # between lines of progress where there is no terminal for a bar

Viewer = Callable[[int, Pair, Pixels], None]
"""Called with the index of a pair, the pair, and its derained image, uint8 [H, W, 3]."""


class Results(Protocol):
    """What some method has made of the pairs, by their names."""

    device: torch.device

    def image(self, name: str) -> Tensor:
        """Return the result for one pair, float32 [3, H, W] in [0, 1]."""


@dataclass(frozen=True)
class PairScore:
    """Scores of one pair in one convention."""

    name: str
    convention: Convention
    rainy_psnr: float  # dB
    rainy_ssim: float
    psnr: float  # dB, of the derained image
    ssim: float


@dataclass(frozen=True)
class Scores:
    """Scores of all pairs of a dataset in all requested conventions."""

    rows: tuple[PairScore, ...]
    seconds: tuple[float, ...] = ()  # per image

    def mean(self, convention: Convention, field: str) -> float:
        """Mean of a `PairScore` field over the pairs, as papers report it.

        Of several test sets, the mean of their means.
        """
        return fmean(
            fmean(getattr(row, field) for row in part.rows if row.convention == convention)
            for part in self.sets.values()
        )

    @property
    def sets(self) -> dict[str, "Scores"]:
        """The scores of each test set, by the first part of the names SET/NAME; else of ""."""
        order = [row.name.rpartition("/")[0] for row in self.rows[:: len(self.conventions) or 1]]
        if len(names := dict.fromkeys(order)) < 2:
            return {next(iter(names), ""): self}
        seconds = self.seconds or (0.0,) * len(order)
        return {
            name: Scores(
                tuple(row for row in self.rows if row.name.rpartition("/")[0] == name),
                tuple(s for own, s in zip(order, seconds, strict=True) if own == name),
            )
            for name in names
        }

    @property
    def conventions(self) -> tuple[Convention, ...]:
        """The conventions in the requested order."""
        return tuple(dict.fromkeys(row.convention for row in self.rows))

    @property
    def pairs(self) -> int:
        """Number of scored pairs."""
        return len({row.name for row in self.rows})


class Progress:
    """The scores so far, in a file from which the same evaluation goes on.

    Args:
        file: JSON lines: `about`, then a line per scored pair.
        about: what decides the scores, plain values. A file that says otherwise is begun anew.
    """

    def __init__(self, file: Path, about: dict[str, Any]) -> None:
        self.file = file
        self.done: dict[int, tuple[list[PairScore], float]] = {}
        self.others = False  # whether the file had scores of other weights, data or settings
        lines: list[str] = []
        if file.exists():
            first, *kept = file.read_text("utf-8", "replace").splitlines() or [""]
            self.others = first != json.dumps(about)
            for line in [] if self.others else kept:
                with suppress(ValueError, TypeError):  # half written
                    index, seconds, rows = json.loads(line)
                    self.done[index] = [PairScore(*row) for row in rows], seconds
                    lines.append(line)
        write_text(file, "\n".join([json.dumps(about), *lines, ""]))

    def add(self, index: int, rows: list[PairScore], seconds: float) -> None:
        """Write the scores of a pair."""
        line = json.dumps([index, seconds, [list(asdict(row).values()) for row in rows]])
        with writing(self.file), self.file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def remove(self) -> None:
        """Delete the file, when its scores are written elsewhere."""
        self.file.unlink(missing_ok=True)


def evaluate(
    derain: Derainer | Results,
    pairs: Pairs,
    conventions: Sequence[Convention],
    view: Viewer | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Derain the rainy image of every pair, and score both the result and the rainy image.

    In a distributed run the pairs are spread over the ranks, and every rank gets all scores.

    Args:
        derain: the network, or results of another method, which take no time.
        pairs: the pairs to score.
        conventions: see `utils.metrics`.
        view: called for every derained image.
        progress: has the scores of an interrupted evaluation, and gets the others; one process.

    Raises:
        UserError: an image is too small for a convention.
    """
    recent: dict[int, Pair] = {}  # the last pair, which `view` need not decode again

    def evaluate_pair(index: int) -> tuple[list[PairScore], float, Pixels | None]:
        recent.clear()
        pair = recent[index] = pairs[index]
        rainy, clean = (to_tensor(x).to(derain.device) for x in (pair.rainy, pair.clean))
        start = time.perf_counter()
        derained = derain(rainy) if isinstance(derain, Derainer) else derain.image(pair.name)
        synchronize(derain.device)
        seconds = time.perf_counter() - start
        mask = None if pair.mask is None else torch.from_numpy(pair.mask).to(derain.device)
        rows = []
        for convention in conventions:
            try:
                before = score(rainy, clean, convention, mask)
                after = score(derained, clean, convention, mask)
            except ValueError as error:
                raise UserError(f"cannot score {pair.name} in {convention}: {error}") from None
            values = (v.item() for v in (*before, *after))
            rows.append(PairScore(pair.name, convention, *values))
        return rows, seconds, to_pixels(derained) if view else None

    done = {i: scored for i, scored in progress.done.items() if i < len(pairs)} if progress else {}
    todo = [index for index in range(len(pairs)) if index not in done]
    results = ranks.spread(evaluate_pair, todo)
    bar = tqdm(results, "scoring", len(pairs), initial=len(done), disable=None, leave=False)
    said = time.monotonic()
    for index, (rows, seconds, derained) in zip(todo, bar, strict=True):
        if view and derained is not None:
            view(index, recent.get(index) or pairs[index], derained)
        if progress:
            progress.add(index, rows, seconds)
        done[index] = rows, seconds
        if bar.disable and ranks.is_main() and time.monotonic() - said > SECONDS_PER_LINE:
            print(f"scored {len(done)} of {len(pairs)} pairs", file=sys.stderr)
            said = time.monotonic()
    scored = [done[index] for index in range(len(pairs))]
    return Scores(
        tuple(row for rows, _ in scored for row in rows), tuple(seconds for _, seconds in scored)
    )


def strip_writer(folder: Path, count: int = STRIPS) -> Viewer:
    """A viewer that writes strips, rainy | derained | clean, of the first pairs to a folder.

    The clean image is transparent outside a mask.
    """

    @ranks.main_only
    def view(index: int, pair: Pair, derained: Pixels) -> None:
        if index < count:
            strip = hstack(pair.rainy, derained, pair.clean)
            if pair.mask is not None:
                alpha = np.full(strip.shape[:2], 255, np.uint8)
                alpha[:, -pair.mask.shape[1] :] *= pair.mask
                strip = np.dstack([strip, alpha])
            write_image(folder / f"{pair.name}.png", strip)

    return view


@ranks.main_only
def write_scores(folder: Path, scores: Scores, about: dict[str, Any]) -> None:
    """Write scores.csv (one line per pair and convention) and scores.json (means and `about`)."""
    rows = (asdict(row).values() for row in scores.rows)
    write_csv(folder / "scores.csv", [PairScore.__dataclass_fields__, *rows])
    fields = ("rainy_psnr", "rainy_ssim", "psnr", "ssim")
    means = {c: {f: _json_number(scores.mean(c, f)) for f in fields} for c in scores.conventions}
    summary = {"pairs": scores.pairs, "mean": means, **about}
    write_text(folder / "scores.json", json.dumps(summary, indent=2) + "\n")


def read_scores(folder: Path) -> tuple[Scores, dict[str, Any]]:
    """Read what `write_scores` has written: the scores, and all of scores.json.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        summary = json.loads((folder / "scores.json").read_text("utf-8"))
        lines = csv.DictReader(io.StringIO((folder / "scores.csv").read_text("utf-8")))
        rows = tuple(_pair_score(**line) for line in lines)
    except OSError as error:
        raise UserError(f"no scores in {folder}: {error.filename}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"scores.csv or scores.json in {folder} is damaged: {error}") from None
    return Scores(rows), summary


def _pair_score(name: str, convention: Any, **values: str) -> PairScore:
    return PairScore(name, convention, **{field: float(text) for field, text in values.items()})


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON has no infinity
