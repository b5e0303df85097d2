"""Derain images, videos, and folders of them. Needs no ground truth.

    python show.py photo.jpg                                  # writes derained/photo.png
    python show.py photos/ clip.mp4 --recursive --format same --output results

Without --weights it uses your own run of the preset `real`, if there is one, or else the included
weights for photographs. With --kind light or heavy it is rain100l-small or rain100h-small.
"""

import math
import signal
import sys
import time
from collections.abc import Sized
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

from PIL import Image
from tqdm import tqdm

from config import default_weights
from config.cli import show_config
from config.schema import ShowConfig
from evaluation.recognition import open_task, write_tasks
from evaluation.report import Derained, check_photo_report, write_photo_report
from models import Derainer
from utils.errors import Interrupted, UserError, WriteError, run_command
from utils.files import writing
from utils.image import hstack
from utils.photo.decode import read_photograph
from utils.photo.encode import write_photograph
from utils.photo.outputs import existing_result, plan_outputs, strip_of, unread_photographs
from utils.photo.video import Frames, is_video, video_writer
from utils.runtime import keep_freed_memory, provenance, set_threads

PRESETS = {
    "photo": "real",
    "light": "rain100l-small",
    "heavy": "rain100h-small",
}  # of each kind of rain


def main(arguments: list[str]) -> None:
    """Run `show.py IMAGE|VIDEO|FOLDER ... [flags]`.

    Files that cannot be read or derained are skipped and reported at the end. If a result cannot be
    written, because the disk is full for example, the run stops.
    """
    keep_freed_memory()
    Image.MAX_IMAGE_PIXELS = None  # large images are expected here, and are no attack
    settings = show_config(arguments, __doc__)
    targets = plan_outputs(
        settings.inputs, settings.output, settings.format, settings.recursive, settings.strips
    )
    if unread := unread_photographs(settings.inputs, settings.recursive):
        kinds = ", ".join(sorted({file.suffix.lower() for file in unread}))
        print(f"not read: {len(unread)} files ({kinds}); convert them to PNG, JPEG or TIFF first")
    earlier: list[Derained] = []
    if settings.skip_existing:
        total = len(targets)
        existing = {s: result for s, t in targets.items() if (result := existing_result(s, t))}
        targets = {s: t for s, t in targets.items() if s not in existing}
        earlier = [Derained(source, result, math.nan) for source, result in existing.items()]
        print(f"skipping {len(existing)} of {total} inputs: results exist in {settings.output}/")
        if not targets and not settings.report and not settings.task:
            return
    weights = settings.weights or default_weights(PRESETS[settings.kind])
    report = settings.output / "report"
    if settings.report:
        check_photo_report(report, list(targets))
    task = open_task(settings, list(targets)) if settings.task else None
    set_threads(settings.machine.threads)
    derain = Derainer(
        weights,
        settings.machine.device,
        settings.machine.precision,
        settings.tile,
        settings.ensemble,
    )
    with writing(settings.output):  # before the work
        settings.output.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=settings.output).close()
    finished: list[Derained] = []
    failures = 0
    for source, target in tqdm(targets.items(), "deraining", disable=None, leave=False):
        start = time.perf_counter()
        try:
            derain_file = _derain_video if is_video(source) else _derain_photograph
            written = derain_file(source, target, derain, settings)
            finished.append(Derained(source, written, time.perf_counter() - start))
        except WriteError as error:
            raise UserError(f"{error}; {_so_far(finished, targets)}") from None
        except KeyboardInterrupt:
            message = f"interrupted; {_so_far(finished, targets)}"
            raise Interrupted(message, signal.SIGINT) from None
        except UserError as failure:
            failures += 1
            tqdm.write(f"skipped: {failure}", file=sys.stderr)
    if finished:
        count = f"{len(finished)} of {len(targets)}"
        print(f"derained {count} with {weights}, written to {settings.output}/")
    results = [*earlier, *finished]
    if results and settings.report:
        facts = {
            "weights": derain.describe(),
            "provenance": provenance(derain.device),
        }
        print(f"report: {write_photo_report(report, results, facts)}")
    if results and task:
        print(f"tasks: {write_tasks(settings.output, results, task)}/")
    if failures:
        raise UserError(f"skipped {failures} of {len(targets)} files, for the reasons above")


def _so_far(finished: Sized, targets: Sized) -> str:
    return (
        f"{len(finished)} of {len(targets)} files are done: run the command again with "
        "--skip-existing to continue"
    )


def _derain_photograph(source: Path, target: Path, derain: Derainer, settings: ShowConfig) -> Path:
    rainy, tags = read_photograph(source)
    result = derain(rainy, source.name)
    if settings.strips:  # first: --skip-existing asks for the result only
        write_photograph(strip_of(target), hstack(rainy, result), tags, settings.quality)
    write_photograph(target, result, tags, settings.quality)
    return target


def _derain_video(source: Path, target: Path, derain: Derainer, settings: ShowConfig) -> Path:
    frames = Frames(source)
    with ExitStack() as stack:
        write, written = stack.enter_context(video_writer(target, frames))
        if settings.strips:  # left first, so the strip is complete before the result
            write_strip, _ = stack.enter_context(video_writer(strip_of(target), frames))
        for rainy in tqdm(frames, source.name, disable=None, leave=False):
            result = derain(rainy)
            write(result)
            if settings.strips:
                write_strip(hstack(rainy, result))
    for note in dict.fromkeys(frames.notes):
        tqdm.write(f"note: {source}: {note}")
    return written


if __name__ == "__main__":
    run_command(main)
