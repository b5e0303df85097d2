"""Derain images, videos, and folders of them. Needs no ground truth.

    python show.py photo.jpg                                  # writes derained/photo.png
    python show.py photos/ clip.mp4 --recursive --format same --output results

Without --weights it uses your own run of the preset `real`, if there is one, or else the included
weights for photographs. --kind light or heavy uses those of rain100l-small or rain100h-small.
"""

import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from PIL import Image
from tqdm import tqdm

from config import default_weights
from config.cli import show_config
from config.schema import ShowConfig
from models import Derainer
from report.page import check_photo_report, write_photo_report
from utils.errors import Interrupted, UserError, WriteError, run_command
from utils.files import writing
from utils.image import Pixels, hstack
from utils.photo.decode import read_photograph
from utils.photo.encode import write_photograph
from utils.photo.neighbours import FRAMES, Frame, Neighbours
from utils.photo.outputs import existing_result, left_out, numbered, plan_outputs, strip_of
from utils.photo.record import Record, unfinished
from utils.photo.shots import Shot
from utils.photo.tags import Tags
from utils.photo.video import Frames, is_video, video_writer
from utils.runtime import keep_freed_memory, provenance, set_threads

KINDS = {"photo": "real", "light": "rain100l-small", "heavy": "rain100h-small"}


def main(arguments: list[str]) -> None:
    """Run `show.py IMAGE|VIDEO|FOLDER ... [flags]`."""
    keep_freed_memory()
    Image.MAX_IMAGE_PIXELS = None  # large images are expected here, and are no attack
    settings = show_config(arguments, __doc__)
    set_threads(settings.machine.threads)
    targets, done = plan(settings), 0
    if targets:
        weights = settings.weights or default_weights(KINDS[settings.kind])
        derain = Derainer(
            weights,
            settings.machine.device,
            settings.machine.precision,
            **asdict(settings.inference),
        )
        with writing(settings.output):  # before the work
            settings.output.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=settings.output).close()
        done = derain_all(derain, targets, settings)
        if done:
            count = f"{done} of {len(targets)}"
            print(f"derained {count} with {weights}, written to {settings.output}/")
    failures = len(targets) - done
    if settings.report and (done or not failures):
        print(f"report: {write_photo_report(settings.output)}")
    if failures:
        raise UserError(f"skipped {failures} of {len(targets)} files, for the reasons above")


def plan(settings: ShowConfig) -> dict[Path, Path]:
    """What to derain: each input with the file to write. Prints what is left out.

    Raises:
        UserError: an input is missing, or a result would overwrite an input or another result.
    """
    targets = plan_outputs(
        settings.inputs, settings.output, settings.format, settings.recursive, settings.strips
    )
    if settings.report:
        check_photo_report(settings.output, list(targets), list(targets.values()))
    for line in left_out(settings.inputs, settings.output, settings.recursive):
        print(line)
    if settings.format == "same":
        photographs = [(s.suffix, t.suffix) for s, t in targets.items() if not is_video(s)]
        if others := sorted({old.lower() for old, new in photographs if old != new}):
            print(f"not written with --format same: {', '.join(others)}; they become PNG or JPEG")
    if not settings.skip_existing:
        return targets
    todo = {s: t for s, t in targets.items() if existing_result(s, t) is None}
    skipped = len(targets) - len(todo)
    print(f"skipping {skipped} of {len(targets)} inputs: results exist in {settings.output}/")
    # What stopped an earlier run, for example by its size, shall not stop this one at once.
    last = unfinished(settings.output)
    return dict(sorted(todo.items(), key=lambda item: item[1] in last))


def derain_all(derain: Derainer, targets: dict[Path, Path], settings: ShowConfig) -> int:
    """Derain all inputs, record the results, and return how many there are.

    Files that cannot be read, derained or written are skipped and reported.

    Raises:
        UserError: nothing more can be written, for example because the disk is full.
        Interrupted: Ctrl-C or SIGTERM.
    """
    facts = {"weights": derain.describe(), "provenance": provenance(derain.device)}
    record = Record(settings.output, facts)
    together = settings.frames is not None and settings.frames > 1
    jobs = numbered(targets) if together else [[source] for source in targets]
    for sources in tqdm(jobs, "deraining", disable=None, leave=False):
        try:
            if len(sources) > 1:
                derain_numbered(derain, {s: targets[s] for s in sources}, settings, record)
                continue
            source, target, start = sources[0], targets[sources[0]], time.perf_counter()
            derain_file = derain_video if is_video(source) else derain_photograph
            with _skipping(source):
                record.begin(target)
                written, scale, frames = derain_file(derain, source, target, settings)
                record.add(source, written, time.perf_counter() - start, scale, frames)
        except (WriteError, KeyboardInterrupt) as stop:
            rest = (
                f"{record.count} of {len(targets)} files are done: run the command again with "
                "--skip-existing to continue"
            )
            if isinstance(stop, WriteError):
                raise UserError(f"{stop}; {rest}") from None
            number = getattr(stop, "signal", signal.SIGINT)
            raise Interrupted(f"interrupted; {rest}", number) from None
    return record.count


@contextmanager
def _skipping(source: Path) -> Iterator[None]:
    """Report a fault of one file, and go on with the next."""
    try:
        yield
    except WriteError:
        raise
    except UserError as failure:
        tqdm.write(f"skipped: {failure}", file=sys.stderr)
    except (OSError, MemoryError) as failure:
        tqdm.write(f"skipped: {source}: {failure or 'out of memory'}", file=sys.stderr)


def derain_photograph(
    derain: Derainer, source: Path, target: Path, settings: ShowConfig
) -> tuple[Path, float, int]:
    """Derain one photograph; return the file written, the scale, and 1 frame."""
    rainy, tags = read_photograph(source)
    scale = derain.choose_scale(rainy)
    _say(source.name, scale)
    _write(source, target, rainy, derain(rainy, source.name, scale), tags, settings)
    return target, scale, 1


def _write(
    source: Path, target: Path, rainy: Pixels, result: Pixels, tags: Tags, settings: ShowConfig
) -> None:
    if settings.strips:  # first: --skip-existing asks for the result only
        write_photograph(strip_of(target), hstack(rainy, result), tags, settings.quality)
    write_photograph(target, result, tags, settings.quality)
    if tags.notes:
        tqdm.write(f"note: {source}: {'; '.join(dict.fromkeys(tags.notes))}")


class Film:
    """Derains the frames of a video in order, each with its neighbours in the same shot.

    Attributes:
        scale: of the shot. It is chosen once: a change would flicker.
    """

    def __init__(self, derain: Derainer, name: str, frames: int) -> None:
        self.derain, self.name, self.frames = derain, name, frames
        self.scale = 1.0
        self._shot, self._neighbours = Shot(), Neighbours(frames)

    def add(self, rainy: Pixels, tag: Any) -> list[Frame]:
        """Take the next frame; return those that are done. They come in order."""
        done = []
        if self._shot.begins_with(rainy):
            done = self.finish()
            self.scale = self.derain.choose_scale(rainy)
            self._neighbours = Neighbours(self.frames, self.scale)
            _say(self.name, self.scale)
        derained = self.derain(rainy, scale=self.scale)
        return done + self._neighbours.add(Frame(rainy, derained, tag))

    def finish(self) -> list[Frame]:
        """Return the frames that are left."""
        return self._neighbours.finish()


def derain_video(
    derain: Derainer, source: Path, target: Path, settings: ShowConfig
) -> tuple[Path, float, int]:
    """Derain one video.

    Returns:
        The file written, the scale of the last shot, and how many frames are looked at together.
    """
    frames = Frames(source)
    film = Film(derain, source.name, settings.frames or FRAMES)
    with ExitStack() as stack:
        write, written = stack.enter_context(video_writer(target, frames))
        if settings.strips:  # left first, so the strip is complete before the result
            write_strip, _ = stack.enter_context(video_writer(strip_of(target), frames))

        def write_all(done: Iterable[Frame]) -> None:
            for rainy, result, frame in done:
                write(result, frame)
                if settings.strips:
                    write_strip(hstack(rainy, result), frame)

        for rainy in tqdm(frames, source.name, disable=None, leave=False):
            write_all(film.add(rainy, frames.frame))
        write_all(film.finish())
    for note in dict.fromkeys(frames.notes):
        tqdm.write(f"note: {source}: {note}")
    return written, film.scale, film.frames


def derain_numbered(
    derain: Derainer, targets: dict[Path, Path], settings: ShowConfig, record: Record
) -> None:
    """Derain the frames of a video that are files of their own, and record the results."""
    folder = next(iter(targets)).parent
    film = Film(derain, folder.name, settings.frames or FRAMES)
    last = time.perf_counter()

    def write_all(done: Iterable[Frame]) -> None:
        nonlocal last
        for rainy, result, (source, tags) in done:
            with _skipping(source):
                _write(source, targets[source], rainy, result, tags, settings)
                now = time.perf_counter()
                record.add(source, targets[source], now - last, film.scale, film.frames)
                last = now

    for source, target in tqdm(targets.items(), folder.name, disable=None, leave=False):
        done: list[Frame] = []
        with _skipping(source):
            record.begin(target)
            rainy, tags = read_photograph(source)
            done = film.add(rainy, (source, tags))
        write_all(done)
    write_all(film.finish())


def _say(name: str, scale: float) -> None:
    if scale > 1:
        tqdm.write(f"{name}: derained at 1/{scale:.2g} of its size, where its streaks fit")


if __name__ == "__main__":
    run_command(main)
