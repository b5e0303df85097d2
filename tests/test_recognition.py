"""Segmentation and detection before and after deraining: counts, pictures, files, errors."""

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.error import URLError

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from tools import onnx_detector, recognition, recognize
from tools.recognition import (
    Boxes,
    Change,
    Task,
    agreement,
    compare_boxes,
    compare_classes,
    draw_boxes,
    draw_classes,
)
from utils.errors import UserError
from utils.image import Pixels, hstack, read_image, write_image
from utils.runtime import REPOSITORY

Picture = Callable[..., Pixels]
NAMES = ["background", "car", "person"]


def boxes(*rows: tuple[int, ...], score: float = 0.9) -> Boxes:
    """Rows of label, left, top, right, bottom."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return Boxes(table[:, 1:], table[:, 0].long(), torch.full((len(table),), score))


def test_classes_are_compared_in_shares_of_the_pixels() -> None:
    rainy = np.array([[0, 0, 1, 1]], np.uint8)
    derained = np.array([[0, 2, 2, 1]], np.uint8)
    assert compare_classes(rainy, derained, NAMES) == [
        ("all", 1.0, 1.0, 0.5, 0.5),
        ("background", 0.5, 0.25, 0.0, 0.25),
        ("car", 0.5, 0.25, 0.0, 0.25),
        ("person", 0.0, 0.5, 0.5, 0.0),
    ]


def test_boxes_are_partners_by_label_and_overlap() -> None:
    """Boxes of 10x10 pixels, moved by 3 (IoU 70/130) or by 4 (60/140)."""
    rainy = boxes((1, 0, 0, 10, 10), (1, 50, 0, 60, 10), (2, 0, 50, 10, 60))
    derained = boxes((1, 3, 0, 13, 10), (1, 50, 4, 60, 14), (1, 0, 50, 10, 60))
    assert compare_boxes(rainy, derained, NAMES) == [
        ("all", 3, 3, 2, 2),
        ("car", 2, 3, 2, 1),
        ("person", 1, 0, 0, 1),
    ]
    assert compare_boxes(derained, rainy, NAMES)[0] == ("all", 3, 3, 2, 2)


def test_a_box_has_one_partner_the_best() -> None:
    """The first box overlaps both, the second only one: the best pair first leaves one box."""
    rainy, derained = boxes((1, 0, 0, 10, 10)), boxes((1, 2, 0, 12, 10), (1, 1, 0, 11, 10))
    assert compare_boxes(rainy, derained, NAMES) == [("all", 1, 2, 1, 0), ("car", 1, 2, 1, 0)]
    chain = boxes((1, 0, 0, 10, 10), (1, 2, 0, 12, 10))
    assert compare_boxes(chain, boxes((1, 2, 0, 12, 10)), NAMES)[0] == ("all", 2, 1, 0, 1)
    assert compare_boxes(boxes(), boxes(), NAMES) == [("all", 0, 0, 0, 0)]


def test_classes_are_tinted_and_named(picture: Picture) -> None:
    image = picture(120, 160) // 4
    labels = np.zeros((120, 160), np.uint8)
    labels[20:100, 80:] = 1
    drawn = draw_classes(image, labels, NAMES)
    assert np.array_equal(drawn[:, :80], image[:, :80])
    assert (drawn[20:40, 80:] != image[20:40, 80:]).any(axis=2).mean() > 0.99
    rows, columns = np.nonzero((drawn > 200).all(axis=2))  # only the name is so bright
    assert 100 < columns.min() < 120 < columns.max() < 140
    assert 50 < rows.min() < rows.max() < 70
    labels[:, 80:] = 0
    labels[0, 0] = 1
    assert not (draw_classes(image, labels, NAMES) > 200).all(axis=2).any()  # too small a class


def test_boxes_are_drawn_with_names_inside_the_picture(picture: Picture) -> None:
    image = picture(120, 160) // 4
    drawn = draw_boxes(image, boxes((1, 20, 30, 80, 90)), NAMES)
    changed = (drawn != image).any(axis=2)
    assert changed[30:91, 20].all()
    assert changed[90, 20:81].all()
    assert not changed[:25].any()
    assert not changed[60:80, 30:70].any()
    at_edge = draw_boxes(image, boxes((2, 150, 110, 159, 119)), NAMES)
    columns = np.nonzero((at_edge > 200).all(axis=2))[1]
    assert columns.min() < 100  # the name is wider than the box and moved to the left


def test_agreement_with_what_is_found_in_clean_images() -> None:
    """Recall and precision over all images together: 3 of 5 boxes found, 3 of 4 right."""
    totals = [Change("all", 4, 3, 1, 2), Change("all", 1, 1, 0, 0)]
    assert agreement(totals) == "recall 60.0% of 5 boxes, precision 75.0% of 4"
    assert agreement([Change("all", 0, 0, 0, 0)]) == "recall - of 0 boxes, precision - of 0"
    shares = [Change("all", 1.0, 1.0, share, share) for share in (0.5, 0.0)]
    assert agreement(shares) == "75.0% of the pixels equal"


def counting_task() -> Task:
    """Finds a car in every image, and a person in bright ones."""

    def find(image: Tensor) -> Boxes:
        car, person = (1, 2, 2, 20, 20), (2, 0, 0, 9, 9)
        return boxes(car, person) if image.mean() > 0.5 else boxes(car)

    return Task(find, compare_boxes, draw_boxes, NAMES)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A dark rainy, a bright derained and a bright clean image; a further rainy one."""
    monkeypatch.setattr(recognize, "torchvision_task", lambda *_: counting_task())
    levels = {"rainy/rain-7.jpg": 20, "rainy/rain-8.jpg": 20, "derained/7.png": 200}
    for name, level in (levels | {"clean/norain-7.png": 200, "clean/rain-7.png": 20}).items():
        write_image(tmp_path / name, np.full((24, 32, 3), level, np.uint8))
    return [str(tmp_path / name) for name in ("rainy", "derained", "clean")]


def test_folders_are_compared_by_name(
    tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    recognize.main([*folders, "--output", str(output)])
    printed = capsys.readouterr().out
    assert "7: 1 → 2 boxes, 1 found, 0 lost; car 1 → 1; person 0 → 1\n" in printed
    assert "rainy images against clean: recall 50.0% of 2 boxes, precision 100.0% of 1" in printed
    assert "derained images against clean: recall 100.0% of 2 boxes, precision 100.0%" in printed
    assert sorted(file.name for file in output.iterdir()) == ["7.png", "recognized.csv"]
    task = counting_task()
    paths = [tmp_path / n for n in ("rainy/rain-7.jpg", "derained/7.png", "clean/norain-7.png")]
    images = [read_image(path) for path in paths]
    drawn = [draw_boxes(i, task.find(torch.tensor(i / 255)), NAMES) for i in images]
    assert np.array_equal(read_image(output / "7.png"), hstack(*drawn))
    rows = list(csv.DictReader((output / "recognized.csv").read_text().splitlines()))
    assert len(rows) == 9  # 3 comparisons of all, car, person
    assert list(rows[2].values()) == ["7", "rainy", "derained", "person", "0", "1", "1", "0"]


def test_two_files_are_compared_whatever_their_names(
    tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("rainy/rain-8.jpg", "derained/7.png")]
    recognize.main([*files, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "7: 1 → 2 boxes" in printed
    assert "clean" not in printed


def test_what_cannot_be_compared(tmp_path: Path, folders: list[str], picture: Picture) -> None:
    with pytest.raises(UserError, match="got 1 paths"):
        recognize.main(folders[:1])
    with pytest.raises(UserError, match=r"derained.*7\.png.*--output"):
        recognize.main([*folders, "--output", folders[1]])
    write_image(tmp_path / "derained" / "9.png", picture())
    with pytest.raises(UserError, match=r"9\.png"):
        recognize.main(folders)
    write_image(tmp_path / "rainy" / "9.png", picture(30, 40))
    with pytest.raises(UserError, match=r"9\.png .* 32x24 and 40x30"):
        recognize.main([*folders[:2], "--output", str(tmp_path / "out")])


# --- loading models, with a stand-in for torchvision --------------------------------------------


class Weights:
    """Stands in for a member of the enum of a model's weights."""

    url = "https://example.org/models/tiny-1234.pth"
    meta: ClassVar[dict[str, Any]] = {"categories": NAMES}

    def transforms(self) -> Callable[[Tensor], Tensor]:
        return lambda images: images


class Everything(torch.nn.Module):
    """Finds a person over the whole image, and a car of little certainty."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        height, width = images.shape[2:]
        corners = torch.tensor([[0.0, 0, width, height]] * 2)
        scores, labels = torch.tensor([0.9, 0.3]), torch.tensor([2, 1])
        return [{"boxes": corners, "labels": labels, "scores": scores}]


def install(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    """Put a torchvision in place that knows one model, whose weights may raise an error."""

    def get_model(name: str, weights: Weights) -> Everything:
        if error:
            raise error
        return Everything()

    models = SimpleNamespace(
        detection="module",
        list_models=lambda module: ["fasterrcnn_mobilenet_v3_large_fpn"],
        get_model_weights=lambda name: SimpleNamespace(DEFAULT=Weights()),
        get_model=get_model,
    )
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))


def test_a_model_of_torchvision_finds_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    task = recognition.torchvision_task("detection", None, torch.device("cpu"))
    found = task.find(torch.zeros(3, 20, 30))
    assert found.corners.tolist() == [[0, 0, 30, 20]]
    assert task.compare(found, found, task.categories)[1] == ("person", 1, 1, 0, 0)
    with pytest.raises(UserError, match=r"'nothing'.*fasterrcnn"):
        recognition.torchvision_task("detection", "nothing", torch.device("cpu"))


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("Missing\n key")])
def test_weights_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The message names the file in the cache of torch, and the address."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    install(monkeypatch, error)
    with pytest.raises(UserError) as caught:
        recognition.torchvision_task("detection", None, torch.device("cpu"))
    message = str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints" / "tiny-1234.pth") in message
    assert "\n" not in message
    assert (Weights.url in message) == isinstance(error, URLError)


@pytest.mark.parametrize(
    ("version", "install"),
    [
        ("2.13.0+cpu", r"0.28.0\+cpu --index-url https://download.pytorch.org/whl/cpu$"),
        ("2.13.0", r"0.28.0$"),
    ],
)
def test_without_torchvision_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, version: str, install: str
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(UserError, match=rf"pip install torchvision=={install}"):
        recognition.torchvision_task("segmentation", None, torch.device("cpu"))


def test_the_advised_release_is_the_pinned_one() -> None:
    pinned = (REPOSITORY / "requirements.txt").read_text()
    assert f"torchvision=={recognition.TORCHVISION} " in pinned


# --- detectors in ONNX files --------------------------------------------------------------------


def findings(side: int, *cells: tuple[int, int, float, float]) -> Any:
    """What a network with two categories returns: boxes of 2x1 cells in the grid of 8 pixels.

    Each has a row, a column, the chance of an object, and that of the second category.
    """
    found = np.zeros((sum((side // s) ** 2 for s in onnx_detector.STRIDES), 7), np.float32)
    for row, column, thing, second in cells:
        found[row * (side // 8) + column] = 0.5, 0.5, np.log(2), 0, thing, 0.1, second
    return found


def test_boxes_of_an_onnx_detector_are_decoded() -> None:
    """An image of 32x16 pixels fills the upper half of the square of 64: it is doubled."""
    image = torch.zeros(3, 16, 32)
    image[0] = 1
    seen = []

    def run(square: Any) -> Any:
        seen.append(square)
        return findings(64, (1, 2, 0.9, 0.8), (6, 0, 0.9, 0.3), (1, 2, 0.9, 0.8))

    found = onnx_detector.find_boxes(run, image, 64, 0.5)
    assert found.corners.tolist() == [[6, 4, 14, 8]]  # centre (20, 12), size 16x8, halved
    assert found.labels.tolist() == [1]
    assert found.scores.tolist() == pytest.approx([0.72])
    (square,) = seen
    assert square.shape == (1, 3, 64, 64)
    assert (square[0, :, :32] == np.array([0, 0, 255])[:, None, None]).all()  # blue, green, red
    assert (square[0, :, 32:] == 114).all()
    low = onnx_detector.find_boxes(run, image, 64, 0.2)
    assert low.corners.tolist() == [[6, 4, 14, 8], [-2, 24, 6, 28]]
    none = onnx_detector.find_boxes(lambda _: findings(64), image, 64, 0.5)
    assert [len(part) for part in none] == [0, 0, 0]


def test_overlapping_boxes_of_one_category_are_one() -> None:
    """Neighbouring cells: two boxes of 2x1 cells have an IoU of 1/3, in the next row of 0."""
    image = torch.zeros(3, 64, 64)
    wide = findings(64, (1, 2, 0.9, 0.9), (1, 3, 0.9, 0.8))
    assert len(onnx_detector.find_boxes(lambda _: wide, image, 64, 0.5).labels) == 2
    wide[:, 2] += np.log(2)  # 4x1 cells: 3/5
    found = onnx_detector.find_boxes(lambda _: wide, image, 64, 0.5)
    assert found.scores.tolist() == pytest.approx([0.81])


def write_detector(file: Path, values: Any) -> None:
    """An ONNX network that returns `values`, plus 0 times what it sees."""
    helper, proto = onnx.helper, onnx.TensorProto
    constant = onnx.numpy_helper.from_array(np.asarray(values, np.float32)[None], "values")
    zero = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    nodes = [
        helper.make_node("GlobalAveragePool", ["square"], ["means"]),
        helper.make_node("ReduceMean", ["means"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["values", "nothing"], ["found"]),
    ]
    square = helper.make_tensor_value_info("square", proto.FLOAT, [1, 3, 64, 64])
    found = helper.make_tensor_value_info("found", proto.FLOAT, [1, *np.shape(values)])
    graph = helper.make_graph(nodes, "detector", [square], [found], [constant, zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(file))


def test_recognize_takes_an_onnx_detector(
    tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rainy", "derained", "clean"):
        write_image(tmp_path / name / "a.png", picture(64, 64))
    folders = [str(tmp_path / name) for name in ("rainy", "derained", "clean")]
    model, output = tmp_path / "tiny.onnx", ["--output", str(tmp_path / "out")]
    write_detector(model, findings(64, (1, 2, 0.9, 0.8)))
    flags = [*folders, *output, "--model", str(model), "--side", "64"]
    recognize.main(flags)
    shown = capsys.readouterr().out
    assert "a: 1 → 1 boxes, 0 found, 0 lost; category 1 1 → 1" in shown
    assert "derained images against clean: recall 100.0% of 1 boxes" in shown
    recognize.main([*flags, "--score", "0.75"])
    assert "recall - of 0 boxes" in capsys.readouterr().out
    with pytest.raises(UserError, match="--side must be a multiple of 32, got 60"):
        recognize.main([*folders, *output, "--model", str(model), "--side", "60"])
    with pytest.raises(UserError, match="remove --task segmentation"):
        recognize.main([*flags, "--task", "segmentation"])
    with pytest.raises(UserError, match=r"no file nowhere\.onnx"):
        recognize.main([*folders, *output, "--model", "nowhere.onnx"])
    write_detector(model, np.zeros((10, 7)))
    with pytest.raises(UserError, match="returns 1x10x7 values: expected a YOLOX detector"):
        recognize.main(flags)
    model.write_bytes(b"no network")
    with pytest.raises(UserError, match=r"OpenCV cannot run .*tiny\.onnx"):
        recognize.main(flags)


# --- with torchvision's models ------------------------------------------------------------------

SMALL: dict[recognition.Kind, str] = {
    "segmentation": "lraspp_mobilenet_v3_large",
    "detection": "ssdlite320_mobilenet_v3_large",
}


@pytest.fixture(scope="module")
def models() -> Any:
    """torchvision.models, where its compiled part loads."""
    try:
        from torchvision import models
    except Exception as error:
        pytest.skip(f"torchvision does not load here: {error}")
    return models


@pytest.mark.parametrize("task", SMALL)
def test_models_with_weights_in_the_cache(
    models: Any,
    task: recognition.Kind,
    tmp_path: Path,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Random weights, biased so that all pixels are category 3, or all boxes 3 with score > 0.5."""
    torch.manual_seed(0)
    model = models.get_model(SMALL[task], weights=None, weights_backbone=None)
    state = model.state_dict()
    for key, tensor in state.items():
        if key.endswith(("low_classifier.bias", "high_classifier.bias")):
            tensor[3] += 100
        if re.fullmatch(r"head\.classification_head\.module_list\.\d\.1\.bias", key):
            tensor.view(-1, 91)[:, 3] += 10  # for each anchor
    weights = models.get_model_weights(SMALL[task]).DEFAULT
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(state, cache / weights.url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("rainy", "derained"):
        write_image(tmp_path / name / "a.png", picture(48, 64, seed=len(name)))
    arguments = [str(tmp_path / "rainy"), str(tmp_path / "derained"), "--task", task]
    output = tmp_path / "out"
    recognize.main([*arguments, "--model", SMALL[task], "--output", str(output)])
    category = weights.meta["categories"][3]
    printed = capsys.readouterr().out
    if task == "segmentation":
        assert f"0.0% of the pixels changed; {category} 100.0% → 100.0%\n" in printed
    else:
        counts = re.search(rf"(\d+) → (\d+) boxes, .*; {category} (\d+) → (\d+)\n", printed)
        assert counts
        assert counts[1] == counts[3] != "0"
        assert counts[2] == counts[4] != "0"
    assert read_image(output / "a.png").shape == (48, 64 + 4 + 64, 3)


def test_classes_lie_where_the_model_sees_them(models: Any) -> None:
    """The model gets a larger, normalized image; class 1 is where that is brighter than average."""

    class Bright(torch.nn.Conv2d):
        def forward(self, image: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            assert min(image.shape[2:]) == 520
            return {"out": torch.cat([image[:, :1] * 0, image[:, :1]], 1)}

    prepare = models.get_model_weights(SMALL["segmentation"]).DEFAULT.transforms()
    image = torch.zeros(3, 30, 44)
    image[:, 10:, :22] = 1
    labels = recognition.find_classes(Bright(1, 1, 1), prepare, image)
    assert np.array_equal(labels, image[0].numpy())
