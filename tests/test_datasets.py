"""The presets of datasets, each tried on a small tree in its official shape."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import eval as eval_script
from config import CONFIGS, PRESETS, facts_of
from config.networks import JDNetConfig
from config.schema import Folders
from data.open import open_pairs
from evaluation.scores import PairScore, Scores, read_scores
from evaluation.tables import table
from models import JDNet
from tools import check_data, recognize, score
from utils import checkpoint
from utils.errors import UserError
from utils.image import Pixels, list_images, read_image, write_image

RAIN = 30  # that the rainy images are brighter than the clean ones, grey levels


class Tree(NamedTuple):
    """Files of a dataset: the rainy and the clean one of each pair, with the scene's number."""

    train: list[tuple[str, str, int]]
    test: list[tuple[str, str, int]]
    break_it: Callable[[Path], object]
    message: str
    test_names: list[str]
    texts: tuple[tuple[str, str], ...] = ()  # of list files: name and content


def unlink(file: str) -> Callable[[Path], object]:
    return lambda root: (root / file).unlink()


def rename(folder: str, name: str) -> Callable[[Path], object]:
    return lambda root: (root / folder).rename((root / folder).with_name(name))


def rain200(folder: str, inside: str, wrong: Callable[[Path], object], message: str) -> Tree:
    def pairs(split: str, numbers: tuple[int, ...]) -> list[tuple[str, str, int]]:
        place = f"{folder}/{split}"
        return [
            (f"{place}/{inside}/norain-{n}x2.png", f"{place}/norain/norain-{n}.png", n)
            for n in numbers
        ]

    names = ["norain-3x2", "norain-11x2"]
    return Tree(pairs("train", (1, 2)), pairs("test", (11, 3)), wrong, message, names)


def in_two(folder: str, pairs: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    return [(f"{folder}/{rainy}", f"{folder}/{clean}", scene) for rainy, clean, scene in pairs]


CITY = "RainCityscapes/leftImg8bit_rain/{}/{}_0_leftImg8bit_rain_alpha_{}_beta_0.005_pattern_1.png"
STREET = "RainCityscapes/leftImg8bit/{}/{}_0_leftImg8bit.png"
SETS = ("Test100", "Rain100H", "Rain100L", "Test2800", "Test1200")

TREES = {
    "rain200l": rain200(
        "Rain200L", "rain", rename("Rain200L/test/rain", "rein"), "test has no subfolder named"
    ),
    "rain200h": rain200(
        "Rain200H",
        "rain/X2",
        unlink("Rain200H/test/norain/norain-3.png"),
        r"^1 images without a partner of the same name: norain-3x2\.png",
    ),
    "rain13k": Tree(
        in_two("Rain13K/train", [("input/1.jpg", "target/1.jpg", 1)]),
        [
            pair
            for number, name in enumerate(SETS)
            for pair in in_two(
                f"Rain13K/test/{name}", [("input/1.png", "target/1.png", number + 2)]
            )
        ],
        rename("Rain13K/test/Test2800", "Test2801"),
        r"no folder .*Test2800",
        [f"{name}/1" for name in SETS],
    ),
    "rain1400": Tree(
        in_two(
            "Rain1400/training",
            [(f"rainy_image/1_{n}.jpg", "ground_truth/1.jpg", 1) for n in (1, 2, 14)],
        ),
        in_two(
            "Rain1400/testing",
            [(f"rainy_image/901_{n}.jpg", "ground_truth/901.jpg", 2) for n in (1, 2, 14)],
        ),
        unlink("Rain1400/testing/ground_truth/901.jpg"),
        r"nothing to read in .*ground_truth",
        ["901_1", "901_2", "901_14"],
    ),
    "rain1200": Tree(
        [("Rain1200/train/0.jpg", "", 1), ("Rain1200/train/1.jpg", "", 2)],
        [("Rain1200/test/0.jpg", "", 3)],
        lambda root: write_image(root / "Rain1200/test/0.jpg", grey(0, (16, 33))),
        r"0\.jpg is 33 pixels wide: .*even width",
        ["0"],
    ),
    "spa": Tree(
        in_two(
            "SPA/real_world",
            [("000/000-1_0_rain.png", "000/000-1_0.png", 1), ("000/2_rain.png", "000/2.png", 2)],
        ),
        in_two("SPA/real_test_1000", [(f"rain/00{n}.png", f"gt/00{n}gt.png", n) for n in (4, 3)]),
        lambda root: (root / "SPA/real_test_1000.txt").write_text("a b\n/c d e\n"),
        r"line 2 of .*real_test_1000\.txt has 3 words: expected a rainy and a clean file",
        ["004", "003"],  # in the order of the list
        (
            (
                "SPA/real_world.txt",
                "./real_world/000/000-1_0_rain.png ./real_world/000/000-1_0.png\n"
                "./real_world/000/2_rain.png ./real_world/000/2.png\n",
            ),
            (
                "SPA/real_test_1000.txt",
                "/real_test_1000/rain/004.png /real_test_1000/gt/004gt.png\n"
                "/real_test_1000/rain/003.png /real_test_1000/gt/003gt.png\n\n",
            ),
        ),
    ),
    "raincityscapes": Tree(
        [
            (CITY.format("train/ulm", "ulm", a), STREET.format("train/ulm", "ulm"), 1)
            for a in (0.01, 0.02)
        ],
        [(CITY.format("val/bonn", "bonn", 0.01), STREET.format("val/bonn", "bonn"), 2)],
        rename("RainCityscapes/leftImg8bit", "left"),
        r"no folder .*leftImg8bit/val",
        ["bonn_0_leftImg8bit_rain_alpha_0.01_beta_0.005_pattern_1"],
    ),
}


def grey(level: int, size: tuple[int, int] = (16, 16)) -> Pixels:
    return np.full((*size, 3), level, np.uint8)


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Tree]:
    """Function that writes the tree of a preset where the preset expects it."""

    def write(preset: str) -> Tree:
        monkeypatch.chdir(tmp_path)
        tree, root = TREES[preset], tmp_path / "datasets"
        for rainy, clean, scene in (*tree.train, *tree.test):
            level = 15 * scene
            if clean:
                write_image(root / clean, grey(level))
                write_image(root / rainy, grey(level + RAIN))
            else:
                write_image(root / rainy, np.hstack([grey(level + RAIN), grey(level)]))
        for file, text in tree.texts:
            (root / file).write_text(text)
        if preset == "raincityscapes":  # Cityscapes has scenes without rain
            write_image(root / STREET.format("train/ulm", "dry"), grey(0))
        return tree

    return write


@pytest.mark.parametrize("preset", TREES)
def test_a_preset_reads_its_official_tree(
    preset: str, plant: Callable[[str], Tree], capsys: pytest.CaptureFixture[str]
) -> None:
    tree = plant(preset)
    data = CONFIGS[preset].data
    assert isinstance(data, Folders)
    for files, pairs in (
        (tree.train, open_pairs(data, "train")),
        (tree.test, open_pairs(data, "test")),
    ):
        levels = sorted(15 * scene for _, _, scene in files)
        assert sorted(round(pair.clean.mean()) for pair in pairs) == levels
        assert all(round(pair.rainy.mean()) == round(pair.clean.mean()) + RAIN for pair in pairs)
    assert [pair.name for pair in open_pairs(data, "test")] == tree.test_names
    with pytest.raises(UserError, match="problems"):
        check_data.main([preset, "--patch-size", "16"])
    assert "pairs expected for this dataset" in capsys.readouterr().out
    check_data.main([preset, "--patch-size", "16", "--dataset", "mine"])
    assert capsys.readouterr().out.endswith("no problems\n")


@pytest.mark.parametrize("preset", TREES)
def test_a_wrong_tree_is_refused_in_one_line(
    preset: str, plant: Callable[[str], Tree], tmp_path: Path
) -> None:
    tree = plant(preset)
    tree.break_it(tmp_path / "datasets")
    with pytest.raises(UserError, match=tree.message) as error:
        open_pairs(CONFIGS[preset].data, "test")
    assert "\n" not in str(error.value)


def test_every_dataset_has_its_tree_and_facts() -> None:
    own = {name for name, preset in PRESETS.items() if preset.facts}
    assert own == {*TREES, "rain100h", "rain100l", "rain12"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no pairs"),
        ("a.png b.png", r"no file .*a\.png, which .*list\.txt names"),
        ("x.png x.png\nx.png x.png", r"names the rainy image x twice"),
    ],
)
def test_wrong_lists(tmp_path: Path, text: str, message: str) -> None:
    write_image(tmp_path / "x.png", grey(1))
    (tmp_path / "list.txt").write_text(text)
    data = Folders("mine", None, tmp_path / "list.txt", layout="list")
    with pytest.raises(UserError, match=message):
        open_pairs(data, "test")
    with pytest.raises(UserError, match=r"no list .*other\.txt"):
        open_pairs(Folders("mine", tmp_path / "other.txt", None, layout="list"), "train")


def test_a_list_may_have_absolute_paths_and_equal_names(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_image(tmp_path / folder / "1.png", grey(1))
    (tmp_path / "set").mkdir()
    lines = [f"{tmp_path}/{folder}/1.png {tmp_path}/{folder}/1.png" for folder in ("b", "a")]
    (tmp_path / "set" / "list.txt").write_text("\n".join(lines))
    data = Folders("mine", None, tmp_path / "set" / "list.txt", layout="list")
    names = [pair.name for pair in open_pairs(data, "test")]
    assert [name[-3:] for name in names] == ["b-1", "a-1"]
    assert not any("/" in name for name in names)


# --- tools --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "truth", "shown"),
    [
        ("rain1400", "Rain1400/testing/ground_truth", "2 images\n"),
        ("spa", "SPA/real_test_1000.txt", "2 of 2 images\n"),
        ("spa", "SPA/real_test_1000/gt", "2 of 2 images\n"),
        ("raincityscapes", "RainCityscapes/leftImg8bit/val", "1 of 1 images\n"),
    ],
)
def test_score_knows_the_ground_truth_of_every_dataset(
    preset: str,
    truth: str,
    shown: str,
    plant: Callable[[str], Tree],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = plant(preset)
    for rainy, _, scene in tree.test[:2]:
        write_image(tmp_path / "derained" / f"{Path(rainy).stem}.png", grey(15 * scene + 1))
    score.main(["derained", f"datasets/{truth}", "--conventions", "rgb"])
    text = capsys.readouterr().out
    assert shown in text
    assert "48.13" in text  # a difference of 1 on the scale 0 to 255
    write_image(tmp_path / "derained" / "77.png", grey(0))
    with pytest.raises(UserError, match=r"^1 images without a partner .*: 77\.png"):
        score.main(["derained", f"datasets/{truth}"])


def test_recognize_matches_several_rainy_images_to_one_clean(
    plant: Callable[[str], Tree], tmp_path: Path
) -> None:
    plant("rain1400")
    folder = tmp_path / "datasets/Rain1400/testing"
    for name in ("901_2", "901_14"):
        write_image(tmp_path / "derained" / f"{name}.png", grey(0))
    scenes = recognize.match(
        [folder / "rainy_image", tmp_path / "derained", folder / "ground_truth"]
    )
    assert [[file.name for file in scene] for scene in scenes] == [
        ["901_14.jpg", "901_14.png", "901.jpg"],
        ["901_2.jpg", "901_2.png", "901.jpg"],
    ]


# --- several test sets --------------------------------------------------------------------------


def test_eval_prints_every_test_set_and_the_average(
    plant: Callable[[str], Tree], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant("rain13k")
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"units": 1, "channels": 16}
    state = JDNet(JDNetConfig(**arguments)).state_dict()
    file = tmp_path / "w.pt"
    checkpoint.save(file, {"network": "jdnet", "arguments": arguments, "state_dict": state})
    common = ["rain13k", "--device", "cpu", "--conventions", "rgb"]
    eval_script.main([*common, "--weights", str(file)])
    shown = capsys.readouterr().out
    titles = [line for line in shown.splitlines() if line.startswith("rain13k, ")]
    assert titles == [*(f"rain13k, {name}, 1 pairs" for name in SETS), "rain13k, average, 5 pairs"]
    scores, summary = read_scores(tmp_path / "scores" / "rain13k")
    assert list(scores.sets) == list(SETS)
    assert summary["mean"]["rgb"]["psnr"] == pytest.approx(scores.mean("rgb", "psnr"))
    strips = list_images(tmp_path / "scores" / "rain13k" / "strips", recursive=True)
    assert len(strips) == 4
    assert read_image(strips[0]).shape[0] == 16
    eval_script.main([*common, "--test-sets", "Test100", "Rain100L", "--compare", str(file)])
    shown = capsys.readouterr().out
    assert shown.count("| rainy input |") == 3
    assert "rain13k, average, 2 pairs: PSNR / SSIM" in shown
    for strip in strips:  # images of another method lie in a folder for each test set
        write_image(tmp_path / "other" / strip.parent.name / strip.name, read_image(strip)[:, -16:])
    flags = ["--test-sets", "Test100", "Rain100L", "--report", "--compare", str(file)]
    eval_script.main([*common, *flags, f"Other={tmp_path / 'other'}"])
    assert capsys.readouterr().out.count("inf / 1.0000") == 3
    page = (tmp_path / "scores" / "rain13k" / "report" / "index.html").read_text()
    assert page.count("inf / 1.0000</td>") == 3
    assert page.count('<div class="pair"') == 2


def test_the_average_of_test_sets_is_that_of_their_means() -> None:
    sizes = {"Test100": 98, "Rain100H": 100, "Rain100L": 100, "Test2800": 2800, "Test1200": 1200}
    rows = [
        PairScore(f"{name}/{i}", "y", 20.0, 0.5, 30.0 + number, 0.9)
        for number, (name, size) in enumerate(sizes.items())
        for i in range(size)
    ]
    data = CONFIGS["rain13k"].data
    assert isinstance(data, Folders)
    scores = Scores(tuple(rows))
    assert scores.mean("y", "psnr") == pytest.approx(32)
    text = table(scores, data, "ours")
    first, average = text.split("\n\n\n")[0], text.split("\n\n\n")[-1]
    assert "98 pairs" in first
    assert "32.00   0.923" in first  # Restormer
    assert "33.96   0.935" in average  # Restormer's table has this average, too
    assert "32.73   0.921" in average  # MPRNet's
    assert "published" not in table(Scores(tuple(rows[1:])), data, "ours").split("\n\n\n")[0]


def test_published_rows_are_of_known_conventions() -> None:
    facts = facts_of(CONFIGS["spa"].data)
    assert facts is not None
    assert {row.convention for row in facts.published} == {"y"}
