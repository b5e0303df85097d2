"""Semantic segmentation or object detection on rainy and derained photographs (paper, 4.4).

The models are torchvision's. Only this module imports torchvision, and only to build a model: its
compiled part needs the build of PyTorch that it was made for.
"""

import colorsys
import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from config.schema import ShowConfig
from evaluation.report import Derained, check_photo_report
from utils.checkpoint import load_weights
from utils.errors import UserError
from utils.files import write_text
from utils.image import Pixels, hstack, read_image, to_pixels, to_tensor, write_image
from utils.photo.video import is_video
from utils.runtime import choose_device

TORCHVISION = "0.28.0"  # the release for the pinned torch
MIN_SCORE = 0.5  # of a box that counts
MIN_IOU = 0.5  # of two boxes that count as the same object
MIN_AREA = 0.005  # share of the pixels from which the name of a class is drawn


class Boxes(NamedTuple):
    """Detected objects: left, top, right, bottom in pixels [N, 4], category [N], score [N]."""

    corners: Tensor
    labels: Tensor
    scores: Tensor


class Change(NamedTuple):
    """One category before and after: shares of the pixels (float) or numbers of boxes (int)."""

    category: str
    rainy: float
    derained: float
    found: float  # in the derained image only
    lost: float  # in the rainy image only


class Task(NamedTuple):
    """One of `TASKS` with its model. What it finds is a map of classes [H, W] or `Boxes`."""

    find: Callable[[Tensor], Any]  # of an image [3, H, W] in [0, 1]
    compare: Callable[[Any, Any, Sequence[str]], list[Change]]
    draw: Callable[[Pixels, Any, Sequence[str]], Pixels]
    categories: Sequence[str]


def open_task(settings: ShowConfig, sources: Sequence[Path]) -> Task:
    """Build the model that the settings name, and check that no result overwrites an input.

    Raises:
        UserError: torchvision does not load, the model is unknown, its weights cannot be
            downloaded or do not fit, or an input lies in the folder of the results.
    """
    name = settings.task or ""
    check_photo_report(settings.output / "tasks", sources, "--task")
    default, find, compare, draw = TASKS[name]
    model, weights = _load(name, settings.task_model or default, settings.task_weights)
    model.to(choose_device(settings.machine.device)).eval()
    return Task(
        partial(find, model, weights.transforms()), compare, draw, weights.meta["categories"]
    )


def write_tasks(output: Path, files: Sequence[Derained], task: Task) -> Path:
    """Print a line per photograph, write its picture and tasks.csv to OUTPUT/tasks/, and return it.

    Args:
        output: folder of the derained images.
        files: what was derained; videos are left out.
        task: from `open_task`.
    """
    folder = output / "tasks"
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["image", *Change._fields])
    for file in files:
        name = file.target.relative_to(output)
        if is_video(file.source):
            print(f"{name}: left out, --task takes images only")
            continue
        images = [to_tensor(read_image(path)) for path in (file.source, file.target)]
        found = [task.find(image) for image in images]
        pictures = [
            task.draw(to_pixels(image), things, task.categories)
            for image, things in zip(images, found, strict=True)
        ]
        write_image(folder / f"{name}{'' if name.suffix == '.png' else '.png'}", hstack(*pictures))
        changes = task.compare(found[0], found[1], task.categories)
        table.writerows([name.as_posix(), *change] for change in changes)
        print(f"{name}: {_summary(*changes)}")
    write_text(folder / "tasks.csv", text.getvalue())
    return folder


def _summary(total: Change, *categories: Change) -> str:
    if isinstance(total.found, float):
        text = f"{total.found:.1%} of the pixels changed"
        return "; ".join(
            [text, *(f"{c.category} {c.rainy:.1%} → {c.derained:.1%}" for c in categories)]
        )
    text = f"{total.rainy} → {total.derained} boxes, {total.found} found, {total.lost} lost"
    return "; ".join([text, *(f"{c.category} {c.rainy} → {c.derained}" for c in categories)])


def _load(task: str, name: str, file: Path | None) -> tuple[nn.Module, Any]:
    """Return a model of torchvision and the enum of its weights, which knows its categories."""
    try:
        from torchvision import models
    except Exception as error:  # ImportError, OSError or RuntimeError, depending on what is missing
        build = torch.__version__.partition("+")[2]
        index = f"+{build} --index-url https://download.pytorch.org/whl/{build}" if build else ""
        raise UserError(
            f"--task cannot import torchvision ({error}): install the one for torch "
            f"{torch.__version__} with pip install torchvision=={TORCHVISION}{index}"
        ) from None
    if name not in (known := models.list_models(module=getattr(models, task))):
        raise UserError(f"no {task} model {name!r}: expected one of {', '.join(known)}")
    weights = models.get_model_weights(name).DEFAULT
    if file and not file.is_file():
        raise UserError(f"no file {file}: expected a state dict of {name}, as in {weights.url}")
    try:
        state = load_weights(file).state if file else weights.get_state_dict(check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"cannot download {weights.url} ({error}): download it on another machine and pass "
            "the file with --task-weights"
        ) from None
    # Without weights, torchvision builds some models differently (auxiliary head, epsilon of the
    # norms). So it builds them with weights, and gets those of the file in place of its download.
    with patch.object(type(weights), "get_state_dict", return_value=state):
        try:
            return models.get_model(name, weights=weights), weights
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{file} does not fit {name}: {reason}") from None


def _run(model: nn.Module, prepare: Callable[[Tensor], Tensor], image: Tensor) -> Any:
    with torch.inference_mode():
        return model(prepare(image.to(next(model.parameters()).device)[None]))


def find_classes(model: nn.Module, prepare: Callable[[Tensor], Tensor], image: Tensor) -> Pixels:
    """Class of each pixel, uint8 [H, W]; `prepare` may resize the image for the model."""
    logits: Tensor = _run(model, prepare, image)["out"][0]
    labels = logits.argmax(0).to("cpu", torch.uint8).numpy()
    height, width = image.shape[1:]
    return np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST))


def find_boxes(model: nn.Module, prepare: Callable[[Tensor], Tensor], image: Tensor) -> Boxes:
    """Objects with a score of at least `MIN_SCORE`."""
    (found,) = _run(model, prepare, image)
    kept = found["scores"] >= MIN_SCORE
    return Boxes(*(found[key][kept].cpu() for key in ("boxes", "labels", "scores")))


def compare_classes(rainy: Pixels, derained: Pixels, categories: Sequence[str]) -> list[Change]:
    """Shares of the pixels: of all, which is 1, then of each class."""
    changed = rainy != derained
    changes = [Change("all", 1.0, 1.0, float(changed.mean()), float(changed.mean()))]
    for index in np.union1d(rainy, derained):
        before, after = rainy == index, derained == index
        parts = (before, after, after & changed, before & changed)
        changes.append(Change(categories[index], *(float(part.mean()) for part in parts)))
    return changes


def compare_boxes(rainy: Boxes, derained: Boxes, categories: Sequence[str]) -> list[Change]:
    """Numbers of boxes: of all, then of each category.

    A box is found or lost if it has no partner in the other image. Partners have the same category
    and an intersection over union of at least `MIN_IOU`; the best pair is matched first.
    """
    (a, b), (ones, others) = (rainy.corners, derained.corners), (rainy.labels, derained.labels)
    sides = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    inner = sides.clamp(min=0).prod(2)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b))
    iou = (inner / (area_a[:, None] + area_b - inner)).nan_to_num() * (ones[:, None] == others)
    lost, found = torch.ones_like(ones, dtype=torch.bool), torch.ones_like(others, dtype=torch.bool)
    while iou.numel() and iou.max() >= MIN_IOU:
        row, column = divmod(int(iou.argmax()), len(b))
        lost[row] = found[column] = False
        iou[row], iou[:, column] = 0, 0
    groups = (ones, others, others[found], ones[lost])
    changes = [Change("all", *map(len, groups))]
    for index in torch.cat(groups[:2]).unique().tolist():
        counts = (int((group == index).sum()) for group in groups)
        changes.append(Change(categories[index], *counts))
    return changes


def draw_classes(image: Pixels, labels: Pixels, categories: Sequence[str]) -> Pixels:
    """Tint all classes but the background, 0, and name each where it is widest; uint8 [H, W, 3]."""
    colours = np.array([_colour(index) for index in range(len(categories))], np.uint8)
    tinted = np.where(labels[..., None] > 0, image // 2 + colours[labels] // 2, image)
    picture = Image.fromarray(tinted)
    for index in set(np.unique(labels).tolist()) - {0}:
        area = (labels == index).astype(np.uint8)
        if area.mean() >= MIN_AREA:
            depth = cv2.distanceTransform(np.pad(area, 1), cv2.DIST_L2, 5)  # the border counts
            _write(picture, cv2.minMaxLoc(depth)[3], categories[index], "mm")
    return np.array(picture)


def draw_boxes(image: Pixels, boxes: Boxes, categories: Sequence[str]) -> Pixels:
    """Draw each box with its category and score; uint8 [H, W, 3]."""
    picture = Image.fromarray(image)
    for corners, label, score in zip(*(part.tolist() for part in boxes), strict=True):
        width = max(2, min(picture.size) // 200)
        ImageDraw.Draw(picture).rectangle(corners, outline=_colour(label), width=width)
        _write(picture, corners[:2], f" {categories[label]} {score:.2f}", "la")
    return np.array(picture)


def _write(picture: Image.Image, position: Sequence[float], text: str, anchor: str) -> None:
    """Write white text with a black rim, moved so that it ends inside the picture."""
    draw, (x, y) = ImageDraw.Draw(picture), position
    font = ImageFont.load_default(max(12, min(picture.size) // 30))
    left, top, right, bottom = draw.textbbox((x, y), text, font, anchor, stroke_width=2)
    x += max(0, -left) - max(0, right - picture.width)
    y += max(0, -top) - max(0, bottom - picture.height)
    draw.text((x, y), text, "white", font, anchor, stroke_width=2, stroke_fill="black")


def _colour(index: int) -> tuple[int, ...]:
    """A saturated colour; those of successive indices differ clearly."""
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(index * 0.618 % 1, 0.8, 1))


TASKS: dict[str, tuple[str, Callable[..., Any], Callable[..., list[Change]], Callable[..., Pixels]]]
TASKS = {  # default model, functions
    "segmentation": ("deeplabv3_mobilenet_v3_large", find_classes, compare_classes, draw_classes),
    "detection": ("fasterrcnn_mobilenet_v3_large_fpn", find_boxes, compare_boxes, draw_boxes),
}
