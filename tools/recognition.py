"""What a trained model recognizes in images before and after deraining (paper, 4.4).

A task is four things: find, compare, draw, and the names of the categories. The models here are
torchvision's; tools/onnx_detector.py has others. Only `torchvision_task` imports torchvision,
because its compiled part needs the build of PyTorch that it was made for.
"""

import colorsys
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from utils.errors import UserError
from utils.image import Pixels

TORCHVISION = "0.28.0"  # the release for the pinned torch
MIN_SCORE = 0.5  # of a box that counts
MIN_IOU = 0.5  # of two boxes that count as the same object
MIN_AREA = 0.005  # share of the pixels from which the name of a class is drawn

Kind = Literal["detection", "segmentation"]


class Boxes(NamedTuple):
    """Detected objects: left, top, right, bottom in pixels [N, 4], category [N], score [N]."""

    corners: Tensor
    labels: Tensor
    scores: Tensor


class Change(NamedTuple):
    """One category in two images: shares of the pixels (float) or numbers of boxes (int)."""

    category: str
    before: float
    after: float
    found: float  # only after
    lost: float  # only before


class Task(NamedTuple):
    """A model and what to do with its findings: a map of classes [H, W], or `Boxes`."""

    find: Callable[[Tensor], Any]  # in an image [3, H, W] in [0, 1]
    compare: Callable[[Any, Any, Sequence[str]], list[Change]]  # the first row is the total
    draw: Callable[[Pixels, Any, Sequence[str]], Pixels]
    categories: Sequence[str]


def torchvision_task(
    kind: Kind, name: str | None, device: torch.device, min_score: float = MIN_SCORE
) -> Task:
    """Build a task with a model of torchvision.

    Args:
        kind: a key of `TASKS`.
        name: of the model in torchvision; None takes a light one.
        device: of the model.
        min_score: of a box that counts.

    Raises:
        UserError: torchvision does not load, the model is unknown, or its weights cannot be
            downloaded or do not fit.
    """
    default, find, compare, draw = TASKS[kind]
    model, weights = _load(kind, name or default)
    model.to(device).eval()
    search = partial(find, model, weights.transforms())
    if kind == "detection":
        search = partial(search, min_score=min_score)
    return Task(search, compare, draw, weights.meta["categories"])


def summary(total: Change, *categories: Change) -> str:
    """One line about what changed between two images."""
    if isinstance(total.found, float):
        text = f"{total.found:.1%} of the pixels changed"
        return "; ".join(
            [text, *(f"{c.category} {c.before:.1%} → {c.after:.1%}" for c in categories)]
        )
    text = f"{total.before} → {total.after} boxes, {total.found} found, {total.lost} lost"
    return "; ".join([text, *(f"{c.category} {c.before} → {c.after}" for c in categories)])


def agreement(totals: Sequence[Change]) -> str:
    """How well what is found in images agrees with what is found in the clean ones.

    Args:
        totals: for each image, the total of the comparison from clean to this image.

    Returns:
        Share of equal pixels; or recall and precision of the boxes, over all images together.
    """
    if isinstance(totals[0].found, float):
        return f"{1 - fmean(total.found for total in totals):.1%} of the pixels equal"
    clean, found, false, missed = (sum(column) for column in list(zip(*totals, strict=True))[1:])
    recall = f"{1 - missed / clean:.1%}" if clean else "-"
    precision = f"{1 - false / found:.1%}" if found else "-"
    return f"recall {recall} of {clean} boxes, precision {precision} of {found}"


def _load(kind: Kind, name: str) -> tuple[nn.Module, Any]:
    """Return a model of torchvision and the enum of its weights, which has the categories."""
    try:
        from torchvision import models
    except Exception as error:  # ImportError, OSError or RuntimeError, depending on what is missing
        build = torch.__version__.partition("+")[2]
        index = f"+{build} --index-url https://download.pytorch.org/whl/{build}" if build else ""
        raise UserError(
            f"cannot import torchvision ({error}): install the one for torch "
            f"{torch.__version__} with pip install torchvision=={TORCHVISION}{index}"
        ) from None
    if name not in (known := models.list_models(module=getattr(models, kind))):
        raise UserError(f"no {kind} model {name!r}: expected one of {', '.join(known)}")
    weights = models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        return models.get_model(name, weights=weights), weights
    except OSError as error:
        raise UserError(
            f"cannot download {weights.url} ({error}): download it elsewhere and save it as {file}"
        ) from None
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} is damaged or of another model: delete it and try again ({reason})"
        ) from None


def _run(model: nn.Module, prepare: Callable[[Tensor], Tensor], image: Tensor) -> Any:
    with torch.inference_mode():
        return model(prepare(image.to(next(model.parameters()).device)[None]))


def find_classes(model: nn.Module, prepare: Callable[[Tensor], Tensor], image: Tensor) -> Pixels:
    """Class of each pixel, uint8 [H, W]; `prepare` may resize the image for the model."""
    labels = _run(model, prepare, image)["out"][0].argmax(0).to("cpu", torch.uint8).numpy()
    height, width = image.shape[1:]
    return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)


def find_boxes(
    model: nn.Module,
    prepare: Callable[[Tensor], Tensor],
    image: Tensor,
    min_score: float = MIN_SCORE,
) -> Boxes:
    """Objects with a score of at least `min_score`."""
    (found,) = _run(model, prepare, image)
    kept = found["scores"] >= min_score
    return Boxes(*(found[key][kept].cpu() for key in ("boxes", "labels", "scores")))


def compare_classes(one: Pixels, other: Pixels, categories: Sequence[str]) -> list[Change]:
    """Compare two maps of classes: all pixels, whose share is 1, then each class."""
    changed = one != other
    changes = [Change("all", 1.0, 1.0, float(changed.mean()), float(changed.mean()))]
    for index in np.union1d(one, other):
        before, after = one == index, other == index
        parts = (before, after, after & changed, before & changed)
        changes.append(Change(categories[index], *(float(part.mean()) for part in parts)))
    return changes


def compare_boxes(one: Boxes, other: Boxes, categories: Sequence[str]) -> list[Change]:
    """Compare two sets of boxes: all, then each category.

    A box is found or lost if it has no partner in the other image. Partners have the same category
    and an intersection over union of at least `MIN_IOU`; the best pair is matched first.
    """
    (a, b), (ones, others) = (one.corners, other.corners), (one.labels, other.labels)
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


TASKS: dict[
    Kind, tuple[str, Callable[..., Any], Callable[..., list[Change]], Callable[..., Pixels]]
]
TASKS = {  # default model, functions
    "segmentation": ("deeplabv3_mobilenet_v3_large", find_classes, compare_classes, draw_classes),
    "detection": ("fasterrcnn_mobilenet_v3_large_fpn", find_boxes, compare_boxes, draw_boxes),
}
