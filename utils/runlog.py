"""Log of a run: JSON lines, tensorboardX scalars and images, and lines on screen."""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]
from tensorboardX.summary import image, scalar
from tqdm import tqdm

from utils.files import write_text, writing
from utils.image import Pixels
from utils.ranks import main_only


class RunLog:
    """Appends to `folder`/log.jsonl and `folder`/tensorboard. Does nothing on ranks but the first.

    Args:
        folder: the folder of the run.
        step: steps already done. Later entries of an interrupted run are dropped, because these
            steps are repeated.
    """

    @main_only
    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= step]
            write_text(path, "".join(line + "\n" for line in kept))
        self.path = path
        (folder / "tensorboard").mkdir(exist_ok=True)
        # tensorboardX's SummaryWriter blocks for ever once its thread has met a full disk.
        self.board = EventsWriter(str(folder / "tensorboard" / "events"))
        self._show(step + 1, session_log=SessionLog(status=SessionLog.START))  # hides later steps

    @main_only
    def event(self, name: str, step: int, **values: Any) -> None:
        """Write one line, and each float in it as a scalar.

        Raises:
            UserError: the line cannot be written.
        """
        with writing(self.path), self.path.open("a") as stream:
            stream.write(json.dumps({"event": name, "step": step, **values}) + "\n")
        numbers = {key: value for key, value in values.items() if isinstance(value, float)}
        for key, value in numbers.items():
            self._show(step, summary=scalar(f"{name}/{key}", value))
        # On a terminal tqdm's bar already shows the steps.
        if numbers and (name != "step" or not sys.stderr.isatty()):
            tqdm.write(f"{name} {step}: " + ", ".join(f"{k} {v:.5g}" for k, v in numbers.items()))

    @main_only
    def picture(self, name: str, step: int, pixels: Pixels) -> None:
        """Add an [H, W, 3] image to TensorBoard."""
        self._show(step, summary=image(name, pixels, dataformats="HWC"))

    @main_only
    def close(self) -> None:
        """Close the TensorBoard writer; on a full disk, what is missing was reported before."""
        with suppress(OSError):
            self.board.close()

    def _show(self, step: int, **content: Any) -> None:
        with writing(self.path.parent / "tensorboard"):
            self.board.write_event(Event(wall_time=time.time(), step=step, **content))
            self.board.flush()


def _step(line: str) -> int:
    """Step of a log line; sys.maxsize for an incomplete line."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return sys.maxsize
