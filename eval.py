"""Score weights on a dataset; prints a table and writes scores.csv and scores.json.

    python eval.py rain100l --weights runs/rain100l/best.pt
    python eval.py rain12 --compare runs/a runs/b Other=results/other/ --report
    python eval.py real --layout photographs --test-folder photos/

Without --weights it takes your own run of the preset, else the weights that come with this code.
After an interruption, the same command goes on with the pairs that are not yet scored.
--compare also takes images that any other method has derained, as NAME=FOLDER. Photographs without
ground truth get NIQE, BRISQUE and PIQE (docs/metrics.md).
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from config import default_weights
from config.cli import eval_config
from config.schema import Config, EvalConfig, Folders, as_dict
from data.open import open_pairs, open_photographs, refuse_output
from data.pairs import fingerprint, names_of
from evaluation.methods import Comparison, DerainedFolder, describe
from evaluation.photographs import evaluate_photographs, quality_table, write_quality
from evaluation.scores import STRIPS, Progress, evaluate, strip_writer, write_scores
from evaluation.tables import table, title
from models import Derainer
from report.page import write_report
from utils.errors import UserError, run_command
from utils.files import folded, is_inside
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


def split_name(given: Path) -> tuple[str, Path]:
    """Split NAME=FOLDER; the name is empty for weights and runs.

    Raises:
        UserError: there is a = without a name or a folder.
    """
    name, equals, folder = str(given).partition("=")
    if given.exists() or not equals:
        return "", given
    if not name or not folder:
        raise UserError(f"--compare {given}: expected weights, a run folder or NAME=FOLDER")
    return name, Path(folder)


def open_method(
    given: Path, settings: EvalConfig, preset: Config, names: Sequence[str]
) -> Derainer | DerainedFolder:
    """Load weights, or find the images that another method has derained.

    Args:
        given: weights, a run folder, or NAME=FOLDER.
        settings: of the evaluation.
        preset: what the settings are based on.
        names: of the images to score, for a folder.

    Raises:
        UserError: they cannot be read, or do not fit.
    """
    name, path = split_name(given)
    if name:
        return DerainedFolder(name, path, names)
    derain = Derainer(
        path / "best.pt" if path.is_dir() else path,
        settings.machine.device,
        settings.machine.precision,
        **asdict(settings.inference),
        fallback=settings.network,
    )
    if settings.network not in (preset.network, derain.network.config):
        raise UserError(f"{derain} already specifies its network: remove the network flags")
    return derain


def label(derain: Derainer | DerainedFolder) -> Path:
    """What names the folder of a method: its name, or the path of its weights."""
    if isinstance(derain, DerainedFolder):
        return Path(derain.name)
    assert derain.weights
    return derain.weights.path


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
    set_threads(settings.machine.threads)
    given = settings.compare or (settings.weights or default_weights(settings.name),)
    if isinstance(settings.data, Folders) and settings.data.layout == "photographs":
        score_photographs(settings, preset, settings.data, given)
    else:
        score_pairs(settings, preset, given)


def score_photographs(
    settings: EvalConfig, preset: Config, data: Folders, given: Sequence[Path]
) -> None:
    """Score photographs without ground truth; print a table and write quality.csv."""
    files = open_photographs(data, settings.match)[: settings.limit]
    names = [file.stem for file in files]
    derainers = [open_method(path, settings, preset, names) for path in given]
    results = evaluate_photographs(derainers, files)
    print(quality_table(results, f"{data.test_folder}, {len(files)} photographs"))
    table_file = (settings.output or Path("scores") / settings.name) / "quality.csv"
    write_quality(table_file, results, names)
    print(f"\nwritten: {table_file}")


def score_pairs(settings: EvalConfig, preset: Config, given: Sequence[Path]) -> None:
    """Score rainy and clean images; print a table, and write the scores, strips and a page."""
    data, compare = settings.data, bool(settings.compare)
    output = settings.output or Path("scores") / settings.name
    everything = open_pairs(data, "test", settings.match)
    pairs = everything[: settings.limit]
    others = any(name for name, _ in map(split_name, given))
    wanted = names_of(pairs) if others else []
    derainers = [open_method(path, settings, preset, wanted) for path in given]
    names = folder_names([label(derain) for derain in derainers]) if compare else [""]
    for name, derain in zip(names, derainers, strict=True):
        refuse_output(data, output / name)
        if isinstance(derain, DerainedFolder) and is_inside(derain.folder / "image", output):
            raise UserError(f"{output} contains the images of {derain}: choose another --output")

    origin = {"data": as_dict(settings)["data"], "provenance": provenance(derainers[0].device)}
    strips = len(pairs) if settings.report else STRIPS
    conventions = list(dict.fromkeys(settings.conventions))
    files = fingerprint(everything)
    height, width = pairs[0].clean.shape[:2]
    results, methods = [], []
    for name, derain in zip(names, derainers, strict=True):
        folder = output / name
        progress = None
        if isinstance(derain, Derainer):
            shared = decisive(settings, derain, strips, files)
            progress = Progress(folder / "progress.jsonl", shared)
            if progress.others:
                print(f"{folder} has scores of other weights, data or settings: scoring all pairs")
            elif progress.done:
                print(f"{len(progress.done)} pairs are already scored: going on")
        view = strip_writer(folder / "strips", strips)
        scores = evaluate(derain, pairs, conventions, view, progress)
        write_scores(folder, scores, {**derain.describe(), **origin, "strips": strips})
        if progress is not None:
            progress.remove()
        results.append(scores)
        methods.append(describe(derain, name, scores, (width, height)))
    if compare:
        ensemble = ", ensemble" if settings.inference.ensemble else ""
        sets = {name: part.pairs for name, part in results[0].sets.items()}
        sets |= {"average": results[0].pairs} if len(sets) > 1 else {}
        titles = tuple(f"{title(data, count, name)}{ensemble}" for name, count in sets.items())
        compared = Comparison(titles, (width, height), tuple(methods), tuple(results))
        compared.write(output)
        print(compared.markdown())
    else:
        print(table(results[0], data, str(derainers[0])))
    folders = ", one folder per method" if compare else ""
    print(f"\nwritten: {output}/{folders} (scores.csv, scores.json, strips/)")
    if settings.report:
        print(f"report: {write_report(output)}")


if __name__ == "__main__":
    run_command(main)
