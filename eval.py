"""Score weights on a dataset; prints a table and writes scores.csv and scores.json.

    python eval.py rain100l --weights runs/rain100l/best.pt
    python eval.py rain12 --compare runs/a runs/b

Without --weights it takes your own run of the preset, else the weights that come with this code.
After an interruption, the same command goes on with the pairs that are not yet scored.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from config import default_weights
from config.cli import eval_config
from config.schema import EvalConfig, as_dict
from data.open import open_pairs, refuse_output
from data.pairs import fingerprint
from evaluation.scores import STRIPS, Progress, evaluate, strip_writer, write_scores
from evaluation.tables import comparison, table
from models import Derainer
from report.page import write_score_report
from utils.errors import UserError, run_command
from utils.files import folded
from utils.runtime import keep_freed_memory, provenance, set_threads


def folder_names(files: Sequence[Path]) -> list[str]:
    """Turn paths into different folder names: runs/a/best.pt becomes runs-a-best."""
    names: list[str] = []
    for file in files:
        name = "-".join(part for part in file.with_suffix("").parts if part.strip("/.\\"))
        known = {folded(Path(other)) for other in names}
        same = (name if count == 1 else f"{name}-{count}" for count in itertools.count(1))
        names.append(next(new for new in same if folded(Path(new)) not in known))
    return names


def decisive(settings: EvalConfig, derain: Derainer, strips: int, files: str) -> dict[str, Any]:
    """What an interrupted evaluation must have in common with one that goes on from its scores."""
    about = {key: value for key, value in derain.describe().items() if key != "weights"}
    machine = {key: provenance(derain.device)[key] for key in ("version", "torch", "gpu")}
    chosen = {
        "precision": settings.machine.precision,
        "tile": settings.inference.tile,
        "conventions": settings.conventions,
    }
    return {**about, **machine, **chosen, "strips": strips, "files": files}


def main(arguments: list[str]) -> None:
    """Run `eval.py [PRESET] [flags]`."""
    keep_freed_memory()
    settings, preset = eval_config(arguments, __doc__)
    data = settings.data
    set_threads(settings.machine.threads)
    output = settings.output or Path("scores") / settings.name
    given = settings.compare or [settings.weights or default_weights(settings.name)]
    files = [f / "best.pt" if f.is_dir() else f for f in given]
    derainers = [
        Derainer(
            file,
            settings.machine.device,
            settings.machine.precision,
            **asdict(settings.inference),
            fallback=settings.network,
        )
        for file in files
    ]
    for derain in derainers:
        if settings.network not in (preset.network, derain.network.config):
            raise UserError(f"{derain} already specifies its network: remove the network flags")
    names = folder_names(files) if settings.compare else [""]
    for name in names:
        refuse_output(data, output / name)
    everything = open_pairs(data, "test")
    pairs = everything[: settings.limit]

    origin = {"data": as_dict(settings)["data"], "provenance": provenance(derainers[0].device)}
    strips = len(pairs) if settings.report else STRIPS
    conventions = list(dict.fromkeys(settings.conventions))
    results = []
    for name, derain in zip(names, derainers, strict=True):
        folder = output / name
        about = {**derain.describe(), **origin, "strips": strips}
        shared = decisive(settings, derain, strips, fingerprint(everything))
        progress = Progress(folder / "progress.jsonl", shared)
        if progress.others:
            print(f"{folder} has scores of other weights, data or settings: scoring all pairs")
        elif progress.done:
            print(f"{len(progress.done)} pairs are already scored: going on")
        view = strip_writer(folder / "strips", strips)
        scores = evaluate(derain, pairs, conventions, view, progress)
        write_scores(folder, scores, about)
        progress.remove()
        results.append(scores)
    if settings.compare:
        print(comparison(results, derainers, data, pairs[0].clean.shape[:2]))
    else:
        print(table(results[0], data, str(derainers[0])))
    folders = ", one folder per network" if settings.compare else ""
    print(f"\nwritten: {output}/{folders} (scores.csv, scores.json, strips/)")
    if settings.report:
        print(f"report: {write_score_report(output)}")


if __name__ == "__main__":
    run_command(main)
