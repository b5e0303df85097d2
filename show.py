"""Derain images, videos, and folders of them. Needs no ground truth.

    python show.py photo.jpg                                  # writes derained/photo.png
    python show.py photos/ clip.mp4 --recursive --format same --output results

Without --weights it uses your own run of the preset `real`, if there is one, or else the included
weights for photographs. With --kind light or heavy it is rain100l-small or rain100h-small.
"""

import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile

from PIL import Image
from tqdm import tqdm

from config import default_weights
from config.cli import show_config
from config.schema import ShowConfig
from models import Derainer
from report.page import check_photo_report, write_photo_report
from utils.errors import Interrupted, UserError, WriteError, run_command
from utils.files import writing
from utils.image import hstack
from utils.photo.decode import read_photograph
from utils.photo.encode import write_photograph
from utils.photo.outputs import existing_result, left_out, plan_outputs, strip_of
from utils.photo.record import Record, unfinished
from utils.photo.shots import Shot
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
    record, done = Record(settings.output, facts), 0
    for source, target in tqdm(targets.items(), "deraining", disable=None, leave=False):
        rest = (
            f"{done} of {len(targets)} files are done: run the command again with "
            "--skip-existing to continue"
        )
        start = time.perf_counter()
        try:
            derain_file = derain_video if is_video(source) else derain_photograph
            record.begin(target)
            written, scale = derain_file(derain, source, target, settings)
            record.add(source, written, time.perf_counter() - start, scale)
            done += 1
        except WriteError as error:
            raise UserError(f"{error}; {rest}") from None
        except KeyboardInterrupt as stop:
            number = getattr(stop, "signal", signal.SIGINT)
            raise Interrupted(f"interrupted; {rest}", number) from None
        except UserError as failure:
            tqdm.write(f"skipped: {failure}", file=sys.stderr)
        except (OSError, MemoryError) as failure:
            tqdm.write(f"skipped: {source}: {failure or 'out of memory'}", file=sys.stderr)
    return done


def derain_photograph(
    derain: Derainer, source: Path, target: Path, settings: ShowConfig
) -> tuple[Path, float]:
    """Derain one photograph; return the file written and the scale."""
    rainy, tags = read_photograph(source)
    scale = derain.choose_scale(rainy)
    _say(source, scale)
    result = derain(rainy, source.name, scale)
    if settings.strips:  # first: --skip-existing asks for the result only
        write_photograph(strip_of(target), hstack(rainy, result), tags, settings.quality)
    write_photograph(target, result, tags, settings.quality)
    if tags.notes:
        tqdm.write(f"note: {source}: {'; '.join(dict.fromkeys(tags.notes))}")
    return target, scale


def derain_video(
    derain: Derainer, source: Path, target: Path, settings: ShowConfig
) -> tuple[Path, float]:
    """Derain one video, frame by frame; return the file written and the scale of the last shot."""
    frames = Frames(source)
    with ExitStack() as stack:
        write, written = stack.enter_context(video_writer(target, frames))
        if settings.strips:  # left first, so the strip is complete before the result
            write_strip, _ = stack.enter_context(video_writer(strip_of(target), frames))
        shot, scale = Shot(), 1.0
        for rainy in tqdm(frames, source.name, disable=None, leave=False):
            if shot.begins_with(rainy):  # one scale for a shot: a change would flicker
                scale = derain.choose_scale(rainy)
                _say(source, scale)
            result = derain(rainy, scale=scale)
            write(result)
            if settings.strips:
                write_strip(hstack(rainy, result))
    for note in dict.fromkeys(frames.notes):
        tqdm.write(f"note: {source}: {note}")
    return written, scale


def _say(source: Path, scale: float) -> None:
    if scale > 1:
        tqdm.write(f"{source.name}: derained at 1/{scale:.2g} of its size, where its streaks fit")


if __name__ == "__main__":
    run_command(main)
