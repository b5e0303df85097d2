"""Derain images, videos, and folders of them. Needs no ground truth.

    python show.py photo.jpg                                  # writes derained/photo.png
    python show.py photos/ clip.mp4 --recursive --format same --output results

Without --weights it uses your own run of the preset `real`, if there is one, or else the included
weights for photographs. With --kind light or --kind heavy the preset is rain100l or rain100h.
"""

import signal
import sys
import time
from collections.abc import Callable, Sized
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

from PIL import Image
from tqdm import tqdm

from config import default_weights
from config.cli import show_config
from config.schema import ShowConfig
from evaluation.report import check_photo_report, write_photo_report
from evaluation.scores import describe_weights
from models.load import open_network
from utils.errors import Interrupted, UserError, WriteError, run_command
from utils.files import writing
from utils.image import Pixels, hstack
from utils.inference import derain_pixels
from utils.photo import record
from utils.photo.decode import read_photograph
from utils.photo.encode import write_photograph
from utils.photo.outputs import existing_result, plan_outputs, strip_of, unread_photographs
from utils.photo.video import Frames, is_video, video_writer
from utils.runtime import (
    choose_device,
    choose_precision,
    keep_freed_memory,
    provenance,
    set_threads,
)

PRESETS = {"photo": "real", "light": "rain100l", "heavy": "rain100h"}  # of each kind of rain


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
    existing: dict[Path, Path] = {}
    if settings.skip_existing:
        total = len(targets)
        existing = {s: result for s, t in targets.items() if (result := existing_result(s, t))}
        targets = {s: t for s, t in targets.items() if s not in existing}
        print(f"skipping {len(existing)} of {total} inputs: results exist in {settings.output}/")
        if not targets and not settings.report:
            return
    weights = settings.weights or default_weights(PRESETS[settings.kind])
    if settings.report:
        check_photo_report(settings.output, list(targets))
    change = _deraining(settings, weights)
    facts = {
        "weights": describe_weights(weights),
        "provenance": provenance(choose_device(settings.machine.device)),
    }
    with writing(settings.output):  # before the work
        settings.output.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=settings.output).close()
    finished: list[Path] = []
    failures = 0
    for source, target in tqdm(targets.items(), "deraining", disable=None, leave=False):
        start = time.perf_counter()
        try:
            derain_file = _derain_video if is_video(source) else _derain_photograph
            written = derain_file(source, target, change, settings)
            finished.append(written)
            record.add(settings.output, facts, source, written, time.perf_counter() - start)
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
    if settings.report and (finished or existing):
        print(f"report: {write_photo_report(settings.output)}")
    if failures:
        raise UserError(f"skipped {failures} of {len(targets)} files, for the reasons above")


def _so_far(finished: Sized, targets: Sized) -> str:
    return (
        f"{len(finished)} of {len(targets)} files are done: run the command again with "
        "--skip-existing to continue"
    )


def _derain_photograph(
    source: Path, target: Path, change: Callable[[Pixels, str], Pixels], settings: ShowConfig
) -> Path:
    rainy, tags = read_photograph(source)
    result = change(rainy, source.name)
    if settings.strips:  # first: --skip-existing asks for the result only
        write_photograph(strip_of(target), hstack(rainy, result), tags, settings.quality)
    write_photograph(target, result, tags, settings.quality)
    return target


def _derain_video(
    source: Path, target: Path, change: Callable[[Pixels, str], Pixels], settings: ShowConfig
) -> Path:
    frames = Frames(source)
    with ExitStack() as stack:
        write, written = stack.enter_context(video_writer(target, frames))
        if settings.strips:  # left first, so the strip is complete before the result
            write_strip, _ = stack.enter_context(video_writer(strip_of(target), frames))
        for rainy in tqdm(frames, source.name, disable=None, leave=False):
            result = change(rainy, "")
            write(result)
            if settings.strips:
                write_strip(hstack(rainy, result))
    for note in dict.fromkeys(frames.notes):
        tqdm.write(f"note: {source}: {note}")
    return written


def _deraining(settings: ShowConfig, weights: Path) -> Callable[[Pixels, str], Pixels]:
    """Return a function from rainy to derained pixels that keeps size, bit depth and alpha.

    Its second argument is the name to show over a progress bar; empty shows none.
    """
    set_threads(settings.machine.threads)
    device = choose_device(settings.machine.device)
    network = open_network(weights, device)
    precision = choose_precision(settings.machine.precision, device)

    def change(rainy: Pixels, name: str) -> Pixels:
        return derain_pixels(
            network, rainy, device, settings.tile, precision, name, settings.ensemble
        )

    return change


if __name__ == "__main__":
    run_command(main)
