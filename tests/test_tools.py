"""The command-line tools."""

import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from config.schema import Config
from data import Pair, SyntheticPairs
from data.patches import Patches, PatchPair
from tools import benchmark, check_data, export_weights, plot_runs, score
from train import train
from utils import checkpoint
from utils.errors import UserError
from utils.image import Pixels, read_image, write_image
from utils.reference_free import quality

Picture = Callable[..., Pixels]


@pytest.fixture
def rainy_pairs() -> list[Pair]:
    return list(SyntheticPairs("train", 4, 48))


def write_rain100(folder: Path, pairs: list[Pair]) -> None:
    for number, pair in enumerate(pairs, 1):
        write_image(folder / f"rain-{number}.png", pair.rainy)
        write_image(folder / f"norain-{number}.png", pair.clean)


def write_wide(folder: Path, pairs: list[Pair]) -> None:
    """Clean on the left, rainy on the right."""
    for number, pair in enumerate(pairs):
        write_image(folder / f"{number}.png", np.concatenate([pair.clean, pair.rainy], axis=1))


def check(tmp_path: Path, *flags: str, preset: str = "rain100l") -> None:
    folders = ["--train-folder", str(tmp_path / "train"), "--test-folder", str(tmp_path / "test")]
    check_data.main([preset, *folders, "--dataset", "mine", "--patch-size", "48", *flags])


def test_a_good_set(
    tmp_path: Path, rainy_pairs: list[Pair], capsys: pytest.CaptureFixture[str]
) -> None:
    write_rain100(tmp_path / "train", rainy_pairs[:2])
    write_rain100(tmp_path / "test", rainy_pairs[2:])
    check(tmp_path)
    shown = capsys.readouterr().out
    assert "2 pairs, 48x48" in shown
    assert "test backgrounds among the training images: 0" in shown
    assert shown.endswith("no problems\n")

    write_image(tmp_path / "clean" / "tiny.png", rainy_pairs[0].clean[:20])
    write_image(tmp_path / "layers" / "a.png", rainy_pairs[0].clean)
    with pytest.raises(UserError, match="2 problems"):
        check(tmp_path, "--clean", str(tmp_path / "clean"), "--layers", str(tmp_path / "layers"))
    shown = capsys.readouterr().out
    assert re.search(r"patches of 48x48 do not fit .*tiny.png \(48x20 pixels\)", shown)
    assert "a.png is not a rain layer" in shown
    clean = tmp_path / "norain"
    for number in range(3):
        write_image(clean / f"norain-{number}.png", rainy_pairs[0].clean)
    check(tmp_path, "--clean", str(clean), "--modelled", "0.5")
    assert f"{clean}: 3 clean images" in capsys.readouterr().out
    with pytest.raises(UserError, match="1 problems"):
        check(tmp_path, "--clean", str(clean))
    assert "train.py would stop: --clean images have no rain" in capsys.readouterr().out


def test_findings_are_listed_and_counted(
    tmp_path: Path, rainy_pairs: list[Pair], capsys: pytest.CaptureFixture[str]
) -> None:
    write_rain100(tmp_path / "train", rainy_pairs)
    write_rain100(tmp_path / "test", [rainy_pairs[0], rainy_pairs[0]])
    write_image(tmp_path / "train" / "rain-1 (1).png", rainy_pairs[0].rainy)
    write_image(tmp_path / "train" / "rain-2.png", rainy_pairs[2].rainy[:20])
    (tmp_path / "train" / "rain-3.png").write_text("no image")
    with pytest.raises(UserError, match="5 problems"):
        check(tmp_path)
    shown = capsys.readouterr().out
    assert "without a partner of the same name: rain-1 (1).png" in shown
    assert "browser duplicate: rain-1 (1).png" in shown
    assert "differ in size" in shown
    assert "cannot read" in shown
    assert "note: 1 scenes in several pairs: rain-1 = rain-2" in shown
    assert "among the training images: 2" in shown
    assert "note: rain is additive and grey in 0 of" in shown
    assert "--exchange cannot be used" in shown


def test_all_that_would_stop_a_training_is_listed(
    tmp_path: Path, rainy_pairs: list[Pair], capsys: pytest.CaptureFixture[str]
) -> None:
    """In one go, and every file of it."""
    train, test = tmp_path / "train", tmp_path / "test"
    write_rain100(train, [*rainy_pairs, rainy_pairs[0]])
    for number, side in ((2, 20), (3, 47), (5, 48)):  # the last is large enough
        for name, pixels in (("rain", rainy_pairs[0].rainy), ("norain", rainy_pairs[0].clean)):
            write_image(train / f"{name}-{number}.png", pixels[:side])
    deep = np.full((48, 48, 3), 70, np.uint16)
    write_image(train / "rain-4.png", deep)
    dry = np.full((10, 48, 3), 70, np.uint8)
    write_rain100(test, [Pair("", dry, dry)])
    for name in ("a", "b"):
        write_image(tmp_path / "clean" / f"{name}.png", dry)
        write_image(tmp_path / "layers" / f"{name}.png", rainy_pairs[1].rainy)
    flags = ["--clean", str(tmp_path / "clean"), "--layers", str(tmp_path / "layers")]
    with pytest.raises(UserError, match="9 problems"):
        check(tmp_path, *flags, "--exchange", "0.5", "--validation", "5")
    shown = capsys.readouterr().out
    assert "--validation must be below the number of training pairs, 5, got 5" in shown
    assert "--validation must be below the number of rain layers, got 5" in shown
    with pytest.raises(UserError, match="9 problems"):
        check(tmp_path, *flags, "--exchange", "0.5")
    shown = capsys.readouterr().out
    assert "patch of 48x48 pixels in 2 of 5 pairs: rain-2 (48x20), rain-3 (48x47);" in shown
    assert "rain-4.png has 16 bits per channel" in shown
    assert "both images are equal in 1 of 1 pairs: rain-1\n" in shown
    assert "cannot be scored, in 1 of 1 pairs: rain-1 (48x10)" in shown
    assert "in 4 of 5 pairs: rain-1, rain-2, rain-3, rain-5; set --exchange 0" in shown
    assert shown.count("patches of 48x48 do not fit") == 2
    assert shown.count("is not a rain layer") == 2
    with pytest.raises(UserError, match="2 problems"):
        check_data.main(
            ["rain100l", "--train-folder", str(tmp_path), "--test-folder", str(tmp_path)]
        )
    assert capsys.readouterr().out.count(f"{tmp_path}: nothing to read") == 2


def test_additive_rain_is_noticed(
    tmp_path: Path, rainy_pairs: list[Pair], capsys: pytest.CaptureFixture[str]
) -> None:
    clean = [pair.clean // 2 for pair in rainy_pairs[:2]]
    pairs = [Pair(str(i), image + np.uint8(9), image) for i, image in enumerate(clean)]
    for part in ("train", "test"):
        write_rain100(tmp_path / part, pairs)
    with pytest.raises(UserError):  # one scene in both sets
        check(tmp_path)
    shown = capsys.readouterr().out
    assert shown.count("additive and grey in 2 of 2 pairs: --exchange can be used") == 2


@pytest.mark.parametrize(("order", "swapped"), [("clean-rainy", False), ("rainy-clean", True)])
def test_swapped_halves_are_noticed(
    tmp_path: Path,
    rainy_pairs: list[Pair],
    capsys: pytest.CaptureFixture[str],
    order: str,
    swapped: bool,
) -> None:
    write_wide(tmp_path / "train", rainy_pairs[:2])
    write_wide(tmp_path / "test", rainy_pairs[2:])
    flags = ["--layout", "side-by-side", "--order", order]
    if swapped:
        with pytest.raises(UserError, match="2 problems"):
            check(tmp_path, *flags)
    else:
        check(tmp_path, *flags)
    assert ("look swapped in 2 of 2 pairs" in capsys.readouterr().out) == swapped


def test_wrong_counts_are_noticed(
    tmp_path: Path, rainy_pairs: list[Pair], capsys: pytest.CaptureFixture[str]
) -> None:
    write_rain100(tmp_path / "train", rainy_pairs[:2])
    write_rain100(tmp_path / "test", rainy_pairs[2:])
    with pytest.raises(UserError, match="2 problems"):
        check(tmp_path, "--dataset", "rain100l")
    assert "200 pairs expected for this dataset" in capsys.readouterr().out


def test_check_data_without_folders() -> None:
    with pytest.raises(UserError, match="synthetic"):
        check_data.main(["synthetic"])


def test_check_data_without_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check_data.main([])
    assert "python -m tools.check_data rain100l\n" in capsys.readouterr().out


def test_score_matches_by_name(
    tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = picture(seed=1)
    brighter = np.minimum(clean.astype(int) + 1, 255).astype(np.uint8)
    write_image(tmp_path / "derained" / "rain-7.png", brighter)
    write_rain100(
        tmp_path / "truth", [Pair("", picture(seed=n), picture(seed=n)) for n in range(3)]
    )
    write_image(tmp_path / "truth" / "norain-7.png", clean)
    table = tmp_path / "scores.csv"
    score.main([str(tmp_path / "derained"), str(tmp_path / "truth"), "--csv", str(table)])
    shown = capsys.readouterr().out
    assert "1 of 4 images" in shown
    assert "rgb              48.1" in shown  # a difference of 1 on the scale 0 to 255
    assert table.read_text().startswith("name,convention,psnr,ssim\nrain-7.png,y,")


def test_score_without_ground_truth(
    tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate("ab"):
        write_image(tmp_path / "derained" / f"{name}.png", picture(seed=seed))
    table = tmp_path / "scores.csv"
    score.main([str(tmp_path / "derained"), "--csv", str(table)])
    shown = capsys.readouterr().out
    assert "2 images without ground truth: lower is better" in shown
    assert "NIQE   BRISQUE      PIQE" in shown
    lines = table.read_text().splitlines()
    assert lines[0] == "name,niqe,brisque,piqe"
    own = quality(picture(seed=1))
    assert lines[2] == f"b.png,nan,{own.brisque},{own.piqe}"
    with pytest.raises(UserError, match="got 3 folders"):
        score.main(["a", "b", "c"])


def test_score_errors(tmp_path: Path, picture: Picture) -> None:
    write_image(tmp_path / "a" / "1.png", picture())
    write_image(tmp_path / "b" / "2.png", picture())
    with pytest.raises(UserError, match=r"1\.png"):
        score.main([str(tmp_path / "a"), str(tmp_path / "b")])
    write_image(tmp_path / "b" / "1.png", picture(30, 30))
    with pytest.raises(UserError, match=r"1\.png in y: "):
        score.main([str(tmp_path / "a"), str(tmp_path / "b")])
    write_image(tmp_path / "a" / "1.jpg", picture())
    with pytest.raises(UserError, match=r"1\.(jpg|png) and 1\.(jpg|png)"):
        score.main([str(tmp_path / "a"), str(tmp_path / "b")])


@pytest.mark.slow
def test_benchmark_prints_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # its subprocesses run at the root, from any folder
    flags = ["--networks", "rescan", "--modes", "forward", "train", "--sizes", "32x32"]
    benchmark.main([*flags, "--repeats", "1", "--workers", "0", "--device", "cpu"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert [cell.strip() for cell in rows[0]] == list(benchmark.COLUMNS)
    assert [row[1].strip() for row in rows[2:]] == ["forward", "train"]
    assert rows[2][0].strip() == "rescan, 149,823 parameters"
    for row in rows[2:]:
        seconds, floor, ratio = (float(cell) for cell in row[5:8])
        assert 0 < floor < seconds
        assert ratio == pytest.approx(seconds / floor, rel=0.01)
    macs = [float(row[8]) for row in rows[2:]]
    assert macs[1] == pytest.approx(3 * macs[0], rel=0.1)
    assert rows[2][10].strip() == ""
    assert 0 <= int(rows[3][10].strip().removesuffix("%")) < 100


def test_the_floor_of_a_benchmark_is_the_time_of_its_multiply_adds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A 3x3 convolution of 64 channels in 256x256 pixels that takes 0.5 s."""
    monkeypatch.setattr(benchmark, "_median_time", lambda *_: 0.5)
    rate = benchmark._convolution_rate(torch.device("cpu"), torch.float32)
    assert rate == 256 * 256 * 64 * 64 * 9 / 0.5


def test_benchmark_measures_the_time_waited_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader as slow as the step: half of the time is waiting."""
    take = Patches.__getitem__

    def slow(patches: Patches, index: int) -> PatchPair:
        time.sleep(0.02)
        return take(patches, index)

    monkeypatch.setattr(Patches, "__getitem__", slow)
    images = torch.zeros(2, 3, 8, 8)
    share = benchmark._waiting(lambda: time.sleep(0.04), images, workers=0, repeats=4)
    assert 0.3 < share < 0.7
    assert images.std() > 0  # the step sees the patches


def test_benchmark_errors() -> None:
    with pytest.raises(UserError, match="expected WIDTHxHEIGHT, got 64"):
        benchmark.main(["--sizes", "64"])
    with pytest.raises(UserError, match="invalid choice 'backward' for argument '--modes'"):
        benchmark.main(["--modes", "forward", "backward"])
    with pytest.raises(UserError, match="--graph needs a GPU: remove it, or choose a GPU"):
        benchmark.main(["--graph", "--device", "cpu"])


def test_plot_runs(tmp_path: Path) -> None:
    events = [{"event": "start", "step": 0}]
    events += [{"event": "step", "step": s, "1-ssim": 1 / s, "lr": 1e-3} for s in range(1, 20)]
    events += [{"event": "eval", "step": s, "psnr_y": 20.0 + s} for s in (10, 20)]
    run = tmp_path / "a"
    run.mkdir()
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    figure = plot_runs.draw({"a": plot_runs.read_log(run)}, window=4)
    above, below = (axes.lines[0] for axes in figure.axes)
    assert np.array_equal(above.get_xdata(), [2.5, 6.5, 10.5, 14.5, 18])
    assert np.array_equal(below.get_ydata(), [30, 40])
    plot_runs.main([str(run), "--output", str(tmp_path / "docs" / "a.png")])
    assert read_image(tmp_path / "docs" / "a.png").shape[:2] == (700, 800)
    with pytest.raises(UserError, match="no runs"):
        plot_runs.main([])
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "log.jsonl"))):
        plot_runs.main([str(tmp_path)])
    with pytest.raises(UserError, match=r"--output .*\.png"):
        plot_runs.main([str(run), "--output", str(tmp_path / "a.xyz")])
    with (run / "log.jsonl").open("a") as log:
        log.write('{"event": "st')  # half written
    assert len(plot_runs.read_log(run)) == len(events)
    (run / "log.jsonl").write_text(json.dumps(events[0]) + "\n")
    with pytest.raises(UserError, match=re.escape(str(run / "log.jsonl"))):
        plot_runs.main([str(run)])


def test_export_weights(tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "shared.safetensors"
    assert tiny.run is not None
    with pytest.raises(UserError, match=r"no .*scores\.json"):
        export_weights.main([str(tiny.run), str(target)])
    scores = train(tiny)
    export_weights.main([str(tiny.run), str(target)])
    exported, own = checkpoint.load_weights(target), checkpoint.load_weights(tiny.run / "best.pt")
    assert all(torch.equal(value, exported.state[key]) for key, value in own.state.items())
    assert (exported.network, exported.arguments) == (own.network, own.arguments)
    assert exported.metadata["steps"] == 6
    assert exported.metadata["score"]["y"]["psnr"] == pytest.approx(scores.mean("y", "psnr"))
    assert str(tmp_path) not in json.dumps(exported.metadata)
    assert hashlib.sha256(target.read_bytes()).hexdigest() in capsys.readouterr().out
    assert exported.metadata["validation_psnr_y"] is None
    metadata = json.loads(json.dumps(own.metadata))
    metadata["config"]["training"]["validation"] = 2
    metadata["config"]["data"] |= {"clean": [str(tmp_path / "bsds")], "train_folder": str(tmp_path)}
    about = export_weights.about(metadata, {"pairs": 2, "mean": {}})
    assert about["data"]["clean"] == ["bsds"]
    assert about["validation_psnr_y"] == own.metadata["validation_psnr_y"]
    assert str(tmp_path) not in json.dumps(about)
    with pytest.raises(UserError, match=r"\.safetensors, got .*x\.pt"):
        export_weights.main([str(tiny.run), str(tmp_path / "x.pt")])
    checkpoint.save_weights(tiny.run / "best.pt", own._replace(metadata={}))
    with pytest.raises(UserError, match=r"scores\.json .*best\.pt"):
        export_weights.main([str(tiny.run), str(target)])
