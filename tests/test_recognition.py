"""Segmentation and detection before and after deraining: counts, pictures, files, messages."""

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor

import show
from config.schema import ShowConfig
from evaluation import recognition
from evaluation.recognition import (
    Boxes,
    Task,
    compare_boxes,
    compare_classes,
    draw_boxes,
    draw_classes,
)
from evaluation.report import Derained
from utils.errors import UserError
from utils.image import Pixels, hstack, read_image, write_image

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


def test_show_writes_pictures_a_table_and_a_line_per_image(
    tmp_path: Path,
    picture: Picture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a model that finds a car in every image, and a person in every second one."""
    seen: list[tuple[int, ...]] = []

    def find(image: Tensor) -> Boxes:
        seen.append(tuple(image.shape))
        car, person = (1, 2, 2, 20, 20), (2, 0, 0, 9, 9)
        return boxes(car) if len(seen) % 2 else boxes(car, person)

    task = Task(find, compare_boxes, draw_boxes, NAMES)
    monkeypatch.setattr(show, "open_task", lambda *_: task)
    folder, output = tmp_path / "in", tmp_path / "out"
    write_image(folder / "a.jpg", picture(32, 40))
    alpha = np.dstack([picture(), picture()[..., :1]])
    write_image(folder / "deep.png", alpha.astype(np.uint16) * 257)
    show.main([str(folder), "--output", str(output), "--task", "detection"])
    printed = capsys.readouterr().out
    assert "a.png: 1 → 2 boxes, 1 found, 0 lost; car 1 → 1; person 0 → 1\n" in printed
    assert f"tasks: {output / 'tasks'}/\n" in printed
    assert seen == [(3, 32, 40)] * 2 + [(3, 24, 32)] * 2
    names = sorted(file.name for file in (output / "tasks").iterdir())
    assert names == ["a.png", "deep.png", "tasks.csv"]
    paths = (folder / "a.jpg", output / "a.png")
    drawn = [draw_boxes(read_image(path), find(torch.empty(0)), NAMES) for path in paths]
    assert np.array_equal(read_image(output / "tasks" / "a.png"), hstack(*drawn))
    rows = list(csv.DictReader((output / "tasks" / "tasks.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["a.png"] * 3 + ["deep.png"] * 3
    assert list(rows[2].values()) == ["a.png", "person", "0", "1", "1", "0"]


def test_pictures_keep_the_tree_and_the_suffix_of_other_formats(
    tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(image: Tensor) -> Pixels:
        labels = np.zeros(image.shape[1:], np.uint8)
        labels[:, :8] = 1
        return labels

    files = [Derained(path, path, 0) for path in (tmp_path / "sub/a.png", tmp_path / "sub/a.jpg")]
    for file in files:
        write_image(file.source, picture())
    files.append(Derained(tmp_path / "clip.avi", tmp_path / "clip.mp4", 0))
    task = Task(find, compare_classes, draw_classes, NAMES)
    folder = recognition.write_tasks(tmp_path, files, task)
    assert sorted(f.name for f in (folder / "sub").iterdir()) == ["a.jpg.png", "a.png"]
    line = "sub/a.png: 0.0% of the pixels changed; background 75.0% → 75.0%; car 25.0% → 25.0%\n"
    printed = capsys.readouterr().out
    assert line in printed
    assert "clip.mp4: left out, --task takes images only\n" in printed


def test_tasks_never_overwrite_inputs(tmp_path: Path, picture: Picture) -> None:
    write_image(tmp_path / "tasks" / "a.png", picture())
    with pytest.raises(UserError, match=r"--task writes into .*tasks, which contains the input"):
        show.main([str(tmp_path / "tasks"), "--output", str(tmp_path), "--task", "detection"])


def test_model_flags_need_a_task() -> None:
    with pytest.raises(UserError, match="--task-model and --task-weights need --task"):
        ShowConfig((Path("a.png"),), task_model="fcn_resnet50")


@pytest.mark.parametrize(
    ("version", "install"),
    [
        ("2.13.0+cpu", r"0.28.0\+cpu --index-url https://download.pytorch.org/whl/cpu$"),
        ("2.13.0", r"0.28.0$"),
    ],
)
def test_without_torchvision_one_line_says_what_to_install(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, version: str, install: str
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr(torch, "__version__", version)
    write_image(tmp_path / "a.png", picture())
    output = tmp_path / "out"
    with pytest.raises(UserError, match=rf"^--task cannot .*pip install torchvision=={install}"):
        show.main([str(tmp_path / "a.png"), "--output", str(output), "--task", "segmentation"])
    assert not output.exists()  # refused before any work


def test_the_advised_release_is_the_pinned_one() -> None:
    pinned = (Path(show.__file__).parent / "requirements.txt").read_text()
    assert f"torchvision=={recognition.TORCHVISION} " in pinned


# --- with torchvision's models ------------------------------------------------------------------

SMALL = {"segmentation": "lraspp_mobilenet_v3_large", "detection": "ssdlite320_mobilenet_v3_large"}


@pytest.fixture(scope="module")
def models() -> Any:
    """torchvision.models, where its compiled part loads."""
    try:
        from torchvision import models
    except Exception as error:
        pytest.skip(f"torchvision does not load here: {error}")
    return models


def settings(task: str, file: Path | None, output: Path, **more: Any) -> ShowConfig:
    return ShowConfig((), task=task, task_weights=file, output=output, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", SMALL)
def test_models_with_weights_of_a_file(
    models: Any, task: str, tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
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
    torch.save(state, tmp_path / "state.pth")
    write_image(tmp_path / "a.png", picture(48, 64))
    arguments = [str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), "--task", task]
    model_flags = ["--task-model", SMALL[task], "--task-weights", str(tmp_path / "state.pth")]
    show.main([*arguments, *model_flags])
    categories = models.get_model_weights(SMALL[task]).DEFAULT.meta["categories"]
    printed = capsys.readouterr().out
    if task == "segmentation":
        assert f"0.0% of the pixels changed; {categories[3]} 100.0% → 100.0%\n" in printed
    else:
        counts = re.search(rf"(\d+) → (\d+) boxes, .*; {categories[3]} (\d+) → (\d+)\n", printed)
        assert counts
        assert counts[1] == counts[3] != "0"
        assert counts[2] == counts[4] != "0"
    assert read_image(tmp_path / "out/tasks/a.png").shape == (48, 64 + 4 + 64, 3)


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


def test_weights_and_models_that_do_not_fit(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = SMALL["detection"]
    with pytest.raises(
        UserError, match=r"no segmentation model 'ssdlite320.*: expected one of dee"
    ):
        recognition.open_task(settings("segmentation", None, tmp_path, task_model=name), [])
    file = tmp_path / "other.pth"
    with pytest.raises(UserError, match=r"no file .*other.pth: expected .*, as in https://"):
        recognition.open_task(settings("detection", file, tmp_path, task_model=name), [])
    torch.save({"weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match=rf"other.pth does not fit {name}: .*Missing key") as caught:
        recognition.open_task(settings("detection", file, tmp_path, task_model=name), [])
    assert "\n" not in str(caught.value)

    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    message = r"cannot download https://\S+ssdlite\S+ .*no network.*--task-weights"
    with pytest.raises(UserError, match=message):
        recognition.open_task(settings("detection", None, tmp_path, task_model=name), [])
