"""The record of an output folder, derained.json: what each result was made from, and how.

    {"runs": [FACTS, ...], "results": {"a.png": {"source": ..., "size": [W, H], "seconds": ...,
    "run": INDEX}}}

FACTS are tables by heading, such as weights and provenance.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from utils.errors import UserError
from utils.files import write_text
from utils.photo.video import Frames, is_video

NAME = "derained.json"

Facts = Mapping[str, Mapping[str, Any]]


class Result(NamedTuple):
    """One derained file."""

    source: Path
    target: Path
    size: tuple[int, int]  # width and height in pixels
    seconds: float
    run: int  # index into the facts


def add(folder: Path, facts: Facts, source: Path, target: Path, seconds: float) -> None:
    """Add a result to the record of its folder; a fault is printed and changes nothing.

    Args:
        folder: the output folder.
        facts: about this run, by heading; plain JSON values.
        source: the rainy file.
        target: the derained file, somewhere in `folder`.
        seconds: time it took.
    """
    try:
        record = _load(folder / NAME) if (folder / NAME).exists() else {"runs": [], "results": {}}
        facts = json.loads(json.dumps(facts))  # tuples become lists, as in the record
        if facts not in record["runs"]:
            record["runs"].append(facts)
        record["results"][target.relative_to(folder).as_posix()] = {
            "source": str(source.absolute()),
            "size": _size(target),
            "seconds": seconds,
            "run": record["runs"].index(facts),
        }
        write_text(folder / NAME, json.dumps(record, indent=1) + "\n")
    except Exception as error:  # the picture is written, and the next one may be, too
        tqdm.write(f"note: {target} is missing in {folder / NAME}: {error}", file=sys.stderr)


def read(folder: Path) -> tuple[list[Result], list[Facts]]:
    """Read the results that still exist, in the order in which they were first written; and facts.

    Raises:
        UserError: there is no record, it is damaged, or none of its results exists.
    """
    if not (folder / NAME).is_file():
        raise UserError(f"no {NAME} in {folder}: expected an output folder of show.py")
    record = _load(folder / NAME)
    results = [
        Result(
            Path(r["source"]), folder / name, (r["size"][0], r["size"][1]), r["seconds"], r["run"]
        )
        for name, r in record["results"].items()
        if (folder / name).is_file()
    ]
    if not results:
        raise UserError(f"none of the results in {folder / NAME} exists: derain something first")
    return results, record["runs"]


def _load(path: Path) -> Any:
    try:
        record = json.loads(path.read_text("utf-8"))
        if record["runs"] and record["results"]:
            return record
    except (ValueError, LookupError, TypeError):
        pass
    raise UserError(f"{path} is damaged or another program's: move it elsewhere")


def _size(path: Path) -> tuple[int, int]:
    if is_video(path):
        height, width = next(iter(Frames(path))).shape[:2]
        return width, height
    with Image.open(path) as file:
        return file.size
