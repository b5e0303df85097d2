"""Score weights on a dataset; prints a table and writes scores.csv and scores.json.

    python eval.py rain100l --weights runs/rain100l/best.pt
    python eval.py rain12 --compare runs/a runs/b

Without --weights it takes your own run of the preset, else the weights that come with this code.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from config import default_weights
from config.cli import eval_config
from config.schema import as_dict
from data.open import open_pairs
from evaluation.report import write_score_report
from evaluation.scores import STRIPS, describe_weights, evaluate, strip_writer, write_scores
from evaluation.tables import comparison, table
from models.load import open_network
from utils.errors import UserError, run_command
from utils.runtime import (
    choose_device,
    choose_precision,
    keep_freed_memory,
    provenance,
    set_threads,
)


def folder_names(files: Sequence[Path]) -> list[str]:
    """Turn paths into different folder names: runs/a/best.pt becomes runs-a-best."""
    names: list[str] = []
    for file in files:
        name = "-".join(part for part in file.with_suffix("").parts if part.strip("/.\\"))
        same = (name if count == 1 else f"{name}-{count}" for count in itertools.count(1))
        names.append(next(unused for unused in same if unused not in names))
    return names


def main(arguments: list[str]) -> None:
    """Run `eval.py [PRESET] [flags]`."""
    keep_freed_memory()
    settings, preset = eval_config(arguments, __doc__)
    data = settings.data
    set_threads(settings.machine.threads)
    device = choose_device(settings.machine.device)
    precision = choose_precision(settings.machine.precision, device)
    output = settings.output or Path("scores") / settings.name
    given = settings.compare or [settings.weights or default_weights(settings.name)]
    files = [f / "best.pt" if f.is_dir() else f for f in given]
    descriptions = [describe_weights(file) for file in files]
    for file, description in zip(files, descriptions, strict=True):
        if description["network"] and settings.network != preset.network:
            raise UserError(f"{file} already specifies its network: remove the network flags")
    fallback = settings.network
    networks = [open_network(file, device, fallback.name, asdict(fallback)) for file in files]
    pairs = open_pairs(data, "test")[: settings.limit]

    origin = {"data": as_dict(settings)["data"], "provenance": provenance(device)}
    strips = len(pairs) if settings.report else STRIPS
    results = []
    names = folder_names(files) if settings.compare else [""]
    for name, description, network in zip(names, descriptions, networks, strict=True):
        folder = output / name
        scores = evaluate(
            network,
            pairs,
            list(dict.fromkeys(settings.conventions)),
            device,
            precision,
            settings.tile,
            strip_writer(folder / "strips", strips),
            settings.ensemble,
        )
        about = {"ensemble": settings.ensemble, "strips": strips}
        write_scores(folder, scores, {**description, **origin, **about})
        results.append(scores)
    if settings.compare:
        size = pairs[0].clean.shape[:2]
        print(comparison(results, networks, files, data, size, settings.ensemble))
    else:
        ensemble = ", ensemble" if settings.ensemble else ""
        method = f"{type(networks[0]).__name__} ({files[0]}{ensemble})"
        print(table(results[0], data, method))
    folders = ", one folder per network" if settings.compare else ""
    print(f"\nwritten: {output}/{folders} (scores.csv, scores.json, strips/)")
    if settings.report:
        print(f"report: {write_score_report(output)}")


if __name__ == "__main__":
    run_command(main)
