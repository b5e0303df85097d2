"""The record of an output folder, derained.jsonl: what each result was made from, and how.

Each run appends a line with its facts, {"run": {...}}, and then two lines per result,
{"begun": "a.png"} and {"result": "a.png", "source": ..., "size": [W, H], "seconds": ...,
"scale": ..., "frames": ...}.
"""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from utils.errors import UserError
from utils.photo.decode import size_of
from utils.photo.video import Frames, is_video

NAME = "derained.jsonl"

Facts = Mapping[str, Mapping[str, Any]]


class Result(NamedTuple):
    """One derained file."""

    source: Path
    target: Path
    size: tuple[int, int]  # width and height in pixels
    seconds: float
    scale: float  # by which the image was reduced
    frames: int  # that were looked at together
    run: int  # index into the facts


class Record:
    """Appends the results of a run to the record of its folder. A fault is printed, not raised.

    Args:
        folder: the output folder.
        facts: about this run, by heading; plain JSON values.

    Attributes:
        count: results that were added, or could not be because of a fault of the record.
    """

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder, self._head = folder, {"run": facts}
        self.count = 0

    def begin(self, target: Path) -> None:
        """Note that work on a result begins; see `unfinished`."""
        with suppress(OSError, ValueError):  # `add` prints it
            self._append({"begun": target.relative_to(self.folder).as_posix()})

    def add(
        self, source: Path, target: Path, seconds: float, scale: float = 1.0, frames: int = 1
    ) -> None:
        """Add a result.

        Args:
            source: the rainy file.
            target: the derained file, somewhere in the folder.
            seconds: time it took.
            scale: by which the image was reduced, see `models.scale`.
            frames: that were looked at together, see `utils.photo.neighbours`.
        """
        self.count += 1
        try:
            result = {
                "result": target.relative_to(self.folder).as_posix(),
                "source": str(source.absolute()),
                "size": _size(target),
                "seconds": seconds,
                "scale": scale,
                "frames": frames,
            }
            self._append(result)
        except Exception as error:  # the picture is written, and the next one may be, too
            note = f"note: {target} is missing in {self.folder / NAME}: {error}"
            tqdm.write(note, file=sys.stderr)

    def _append(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line) + "\n"
        if self._head:  # after an empty line, which ends what an interruption left incomplete
            text = "\n" + json.dumps(self._head) + "\n" + text
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / NAME).open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        self._head = {}


def unfinished(folder: Path) -> set[Path]:
    """The results whose work began and did not end, in whatever way: perhaps they cannot be made.

    Empty if there is no record.
    """
    begun: set[Path] = set()
    with suppress(OSError):
        for text in (folder / NAME).read_text("utf-8", errors="replace").splitlines():
            with suppress(ValueError, LookupError, TypeError):
                line = json.loads(text)
                if "begun" in line:
                    begun.add(folder / line["begun"])
                else:
                    begun.discard(folder / line["result"])
    return begun


def read(folder: Path) -> tuple[list[Result], list[Facts]]:
    """Read the results that still exist, each in its last form; and the facts of all runs.

    Lines that an interruption left incomplete are skipped.

    Raises:
        UserError: there is no record, or none of its results exists.
    """
    if not (folder / NAME).is_file():
        raise UserError(f"no {NAME} in {folder}: expected an output folder of show.py")
    runs: list[Facts] = []
    results: dict[str, Result] = {}
    for text in (folder / NAME).read_text("utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            if "run" in line:
                runs.append(line["run"])
            elif runs and (folder / line["result"]).is_file():
                target, (width, height) = folder / line["result"], line["size"]
                results[line["result"]] = Result(
                    Path(line["source"]),
                    target,
                    (width, height),
                    line["seconds"],
                    line["scale"],
                    line.get("frames", 1),
                    len(runs) - 1,
                )
        except (ValueError, LookupError, TypeError):
            continue
    if not results:
        raise UserError(f"{folder / NAME} names no result that exists: derain something first")
    return list(results.values()), runs


def _size(path: Path) -> tuple[int, int]:
    if is_video(path):
        height, width = next(iter(Frames(path))).shape[:2]
        return width, height
    return size_of(path)
