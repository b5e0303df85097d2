"""Detectors in ONNX files, run by OpenCV: the YOLOX family (Ge et al., arXiv 2107.08430).

Such a network sees a square of BGR values from 0 to 255: the image, as large as fits, in the upper
left corner, and grey. For every cell of three grids it returns the centre and size of one box, how
likely it holds an object, and how likely each category.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tools.recognition import Boxes, Task, compare_boxes, draw_boxes
from utils.errors import UserError
from utils.image import to_pixels

STRIDES = (8, 16, 32)  # pixels per cell of the three grids
GREY = 114  # of the rest of the square
MAX_IOU = 0.45  # of two boxes of one category in one image

COCO = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
    *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
    *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
    *("couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse"),
    *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    "toothbrush",
)


def onnx_task(file: Path, side: int, min_score: float) -> Task:
    """Build a detection task with a network in an ONNX file.

    Args:
        file: of a YOLOX network.
        side: of the square that it sees, in pixels.
        min_score: of a box that counts.

    Raises:
        UserError: the file is missing, unreadable, or of another kind of network.
    """
    if not file.is_file():
        raise UserError(f"no file {file}: expected a detector in ONNX format")
    try:
        network = cv2.dnn.readNetFromONNX(str(file))
        network.setInput(np.zeros((1, 3, side, side), np.float32))
        shape = network.forward().shape
    except cv2.error as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"OpenCV cannot run {file} on {side}x{side} pixels: {reason}") from None
    cells = sum((side // stride) ** 2 for stride in STRIDES)
    if len(shape) != 3 or shape[1] != cells or shape[2] < 6:
        raise UserError(
            f"{file} returns {'x'.join(map(str, shape))} values: expected a YOLOX detector, which "
            f"returns 1x{cells}x85 for {side}x{side} pixels and 80 categories"
        )
    count = shape[2] - 5
    categories = COCO if count == len(COCO) else tuple(f"category {i}" for i in range(count))

    def run(square: NDArray[np.float32]) -> NDArray[np.float32]:
        network.setInput(square)
        return np.asarray(network.forward()[0])

    def find(image: Tensor) -> Boxes:
        return find_boxes(run, image, side, min_score)

    return Task(find, compare_boxes, draw_boxes, categories)


def find_boxes(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    image: Tensor,
    side: int,
    min_score: float,
) -> Boxes:
    """Find objects in an image.

    Args:
        run: the network, from [1, 3, side, side] to [cells, 5 + categories].
        image: float32 [3, H, W] in [0, 1], RGB.
        side: of the square that the network sees, in pixels.
        min_score: of a box that counts.
    """
    pixels = to_pixels(image)[..., ::-1]
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    square = np.full((side, side, 3), GREY, np.float32)
    square[: size[1], : size[0]] = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    found = run(np.ascontiguousarray(square.transpose(2, 0, 1))[None])

    grids = [np.indices((side // s, side // s))[::-1].reshape(2, -1).T for s in STRIDES]
    strides = np.repeat(STRIDES, [len(grid) for grid in grids])[:, None]
    centres = (found[:, :2] + np.concatenate(grids)) * strides
    extents = np.exp(found[:, 2:4]) * strides
    likely = found[:, 4:5] * found[:, 5:]
    labels = likely.argmax(axis=1)
    scores = likely[np.arange(len(labels)), labels]
    boxes = np.concatenate([centres - extents / 2, extents], axis=1) / scale
    kept = cv2.dnn.NMSBoxesBatched(
        boxes.tolist(), scores.tolist(), labels.tolist(), min_score, MAX_IOU
    )
    chosen = np.asarray(kept, np.int64).reshape(-1)
    corners = np.concatenate([boxes[chosen, :2], boxes[chosen, :2] + boxes[chosen, 2:]], axis=1)
    return Boxes(
        torch.from_numpy(corners).float().reshape(-1, 4),
        torch.from_numpy(labels[chosen]),
        torch.from_numpy(scores[chosen]),
    )
