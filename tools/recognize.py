"""Compare what a trained model recognizes in rainy and in derained images.

    python -m tools.recognize photos/ derained/
    python -m tools.recognize rainy/ derained/ clean/ --task segmentation --output classes
    python -m tools.recognize rainy/ derained/ clean/ --model yolox_nano.onnx --score 0.3

Images are matched by the common part of their names: rain-7, norain-7, 7x2 and 7_GT are all 7.
Several may belong to one clean image, as 901_1 and 901_14 to 901. Rainy and clean images without a
derained one are left out. Writes a picture per image and recognized.csv, and prints a line per
image. With clean images it also says how well what is found in the rainy and in the derained images
agrees with what is found in the clean ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from config.cli import tool_options
from data.layouts import find_partners, ground_truths, images_in
from tools.onnx_detector import onnx_task
from tools.recognition import (
    MIN_SCORE,
    Change,
    Kind,
    Task,
    agreement,
    summary,
    torchvision_task,
)
from utils.errors import UserError, run_command
from utils.files import is_inside, write_csv
from utils.image import hstack, list_images, read_image, to_pixels, to_tensor, write_image
from utils.runtime import choose_device

ROLES = ("rainy", "derained", "clean")


@dataclass(frozen=True)
class Options:
    """What to compare."""

    images: tuple[Path, ...]
    """RAINY DERAINED [CLEAN]: two or three folders, or two or three files."""
    task: Kind = "detection"
    """detection finds boxes, segmentation the class of every pixel."""
    model: str | None = None
    """Name of a model in torchvision, or the ONNX file of a YOLOX detector; default a light one."""
    score: float = MIN_SCORE
    """Smallest score of a box that counts."""
    side: int = 416
    """Side in pixels of the square that the detector in an ONNX file sees."""
    output: Path = Path("recognized")
    """Folder of the pictures and of recognized.csv."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""


def load_task(options: Options) -> Task:
    """Load the model that the options name.

    Raises:
        UserError: it cannot be had, or does not fit the task.
    """
    if options.model is None or not options.model.endswith(".onnx"):
        device = choose_device(options.device)
        return torchvision_task(options.task, options.model, device, options.score)
    if options.task != "detection":
        raise UserError(f"{options.model} is taken for a detector: remove --task {options.task}")
    if options.side < 32 or options.side % 32:
        raise UserError(f"--side must be a multiple of 32, got {options.side}")
    return onnx_task(Path(options.model), options.side, options.score)


def match(given: Sequence[Path]) -> list[tuple[Path, ...]]:
    """List the files that belong together: rainy, derained and, if given, clean.

    Raises:
        UserError: a folder is missing, or a derained image has no partner.
    """
    if all(path.is_file() for path in given):
        return [tuple(given)]
    derained = list_images(given[1])
    columns = [
        _partners(derained, folder, role) for folder, role in zip(given, ROLES, strict=False)
    ]
    return list(zip(*columns, strict=True))


def _partners(derained: list[Path], folder: Path, role: str) -> list[Path]:
    if role == "clean":
        files = ground_truths(folder)
    else:  # a Rain100 folder holds both
        files = images_in(folder)
        files = [file for file in files if not file.name.startswith("norain-")] or files
    partners = {pair.rainy: pair.clean for pair in find_partners(derained, files)}
    return [partners[file] for file in derained]


def recognize(
    task: Task, files: Sequence[Path], picture: Path
) -> dict[tuple[str, str], list[Change]]:
    """Find things in images of one scene, draw them side by side, and compare the images.

    Args:
        task: what to find.
        files: the rainy, the derained and, if there is one, the clean image.
        picture: file to write.

    Returns:
        The changes from rainy to derained, from clean to rainy, and from clean to derained, keyed
        by these names.

    Raises:
        UserError: a file is unreadable, or the images differ in size.
    """
    images = [to_tensor(read_image(file)) for file in files]
    if len(sizes := {image.shape for image in images}) > 1:
        shapes = " and ".join(sorted(f"{w}x{h}" for _, h, w in sizes))
        raise UserError(f"{files[0]} and {files[1]} or its partner differ in size: {shapes}")
    found = dict(zip(ROLES, map(task.find, images), strict=False))
    drawn = (
        task.draw(to_pixels(image), things, task.categories)
        for image, things in zip(images, found.values(), strict=True)
    )
    write_image(picture, hstack(*drawn))
    steps = [("rainy", "derained"), ("clean", "rainy"), ("clean", "derained")]
    return {
        (one, other): task.compare(found[one], found[other], task.categories)
        for one, other in steps
        if one in found
    }


def main(arguments: list[str]) -> None:
    """Run `python -m tools.recognize RAINY DERAINED [CLEAN]`."""
    options = tool_options(Options, arguments, "python -m tools.recognize", __doc__)
    if len(options.images) not in (2, 3):
        raise UserError(f"expected RAINY DERAINED [CLEAN], got {len(options.images)} paths")
    scenes = match(options.images)
    output = options.output
    for file in (file for scene in scenes for file in scene):
        if is_inside(file, output):
            raise UserError(f"{output} contains the input {file}: choose another --output")
    task = load_task(options)
    rows: list[tuple[object, ...]] = [("image", "from", "to", *Change._fields)]
    totals: dict[tuple[str, str], list[Change]] = {}
    for scene in scenes:
        name = scene[1].stem
        comparisons = recognize(task, scene, output / f"{name}.png")
        for step, changes in comparisons.items():
            rows += ((name, *step, *change) for change in changes)
            totals.setdefault(step, []).append(changes[0])
        print(f"{name}: {summary(*comparisons['rainy', 'derained'])}")
    write_csv(output / "recognized.csv", rows)
    for role in ROLES[:2]:
        if ("clean", role) in totals:
            print(f"{role} images against clean: {agreement(totals['clean', role])}")
    print(f"written: {output}/ (pictures, recognized.csv)")


if __name__ == "__main__":
    run_command(main)
