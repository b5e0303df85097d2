"""Derain images, videos, and folders of them. Needs no ground truth.

    python show.py photos/ clip.mp4 --weights runs/rain100h/best.pt --output derained

Without --weights it takes the weights for photographs that come with this code.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from config import default_weights
from config.cli import show_config
from config.schema import ShowConfig
from evaluation.report import Derained, check_photo_report, write_photo_report
from evaluation.scores import describe_weights
from models.load import open_network
from utils.errors import UserError, run_command
from utils.image import SUFFIXES as IMAGES
from utils.image import (
    Pixels,
    hstack,
    list_images,
    read_image,
    to_pixels,
    to_tensor,
    write_image,
)
from utils.inference import derain
from utils.runtime import (
    choose_device,
    choose_precision,
    keep_freed_memory,
    provenance,
    set_threads,
)
from utils.video import SUFFIXES as VIDEOS
from utils.video import Frames, is_video, video_writer


def main(arguments: list[str]) -> None:
    """Run `show.py IMAGE|VIDEO|FOLDER ... [flags]`.

    Files that cannot be read or derained are skipped and reported at the end.
    """
    keep_freed_memory()
    settings = show_config(arguments, __doc__)
    targets = _targets(settings.inputs, settings.output)
    weights = settings.weights or default_weights("real")
    report = settings.output / "report"
    if settings.report:
        check_photo_report(report, list(targets))
    change = _deraining(settings, weights)
    finished: list[Derained] = []
    failures: list[UserError] = []
    for source, target in tqdm(targets.items(), "deraining", disable=None, leave=False):
        start = time.perf_counter()
        try:
            _derain_file(source, target, change, settings.strips)
            finished.append(Derained(source, target, time.perf_counter() - start))
        except UserError as failure:
            failures.append(failure)
    if finished:
        count = f"{len(finished)} of {len(targets)}"
        print(f"derained {count} with {weights}, written to {settings.output}/")
    if finished and settings.report:
        facts = {
            "weights": describe_weights(weights),
            "provenance": provenance(choose_device(settings.machine.device)),
        }
        print(f"report: {write_photo_report(report, finished, facts)}")
    if failures:
        raise UserError(
            f"skipped {len(failures)} of {len(targets)} files; first error: {failures[0]}"
        )


def _derain_file(
    source: Path, target: Path, change: Callable[[Pixels], Pixels], strips: bool
) -> None:
    frames = Frames(source) if is_video(source) else [read_image(source)]
    bar = tqdm(frames, source.name, disable=None if is_video(source) else True, leave=False)
    count = 0
    with ExitStack() as stack:
        write = stack.enter_context(_writer(target, frames))
        write_strip = stack.enter_context(_writer(_strip(target), frames)) if strips else None
        for rainy in bar:
            result = change(rainy)
            write(result)
            if write_strip:
                write_strip(hstack(rainy, result))
            count += 1
    if count < 0.98 * len(frames):  # some formats only estimate the number of frames
        tqdm.write(f"note: {source} ended after {count} of {len(frames)} frames")


def _deraining(settings: ShowConfig, weights: Path) -> Callable[[Pixels], Pixels]:
    """Return a function from rainy to derained pixels that keeps size, bit depth and alpha."""
    set_threads(settings.machine.threads)
    device = choose_device(settings.machine.device)
    network = open_network(weights, device)
    precision = choose_precision(settings.machine.precision, device)

    def change(rainy: Pixels) -> Pixels:
        derained = derain(network, to_tensor(rainy).to(device), settings.tile, precision)
        return np.concatenate([to_pixels(derained, rainy.dtype.type), rainy[..., 3:]], axis=2)

    return change


def _targets(inputs: Iterable[Path], output: Path) -> dict[Path, Path]:
    """Map each input to its output: same name, as PNG or MP4.

    The old suffix is kept if two inputs differ only in it.

    Raises:
        UserError: an input is missing, or a target would overwrite an input or another target.
    """
    suffixes = (*IMAGES, *VIDEOS)
    found = [
        file
        for path in inputs
        for file in (list_images(path, suffixes) if path.is_dir() else [path])
    ]
    sources = list(dict.fromkeys(found))  # a file may be listed besides its folder
    if missing := [source for source in sources if not source.is_file()]:
        raise UserError(f"no file or folder {missing[0]}")
    stems = Counter((source.stem, is_video(source)) for source in sources)
    targets = {}
    for source in sources:
        name = source.stem if stems[source.stem, is_video(source)] == 1 else source.name
        targets[source] = output / (name + (".mp4" if is_video(source) else ".png"))
    if len(set(targets.values())) < len(targets):
        raise UserError(
            "two inputs have the same name: derain them separately, with different --output"
        )
    written = {path.resolve() for t in targets.values() for path in (t, _strip(t))}
    if written & {source.resolve() for source in sources}:
        raise UserError(
            f"{output} contains the inputs, which are never overwritten: choose another --output"
        )
    return targets


def _strip(target: Path) -> Path:
    return target.parent / "strips" / target.name


@contextmanager
def _writer(path: Path, frames: Frames | list[Pixels]) -> Iterator[Callable[[Pixels], None]]:
    if isinstance(frames, Frames):
        with video_writer(path, frames.rate) as write:
            yield write
    else:
        yield partial(write_image, path)


if __name__ == "__main__":
    run_command(main)
