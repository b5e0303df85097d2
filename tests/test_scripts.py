"""The scripts and tools, run as by a user."""

import csv
import errno
import hashlib
import importlib
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import eval as eval_script
import show
from config import CONFIGS, PRESETS, WEIGHTS, default_weights
from config.networks import JDNetConfig, PReNetConfig
from config.schema import Config, Folders, Synthetic
from data import Pair, SyntheticPairs
from evaluation.scores import PairScore, Scores, evaluate, strip_writer, write_scores
from evaluation.tables import table
from models import DCSFN, Derainer, JDNet, PReNet
from train import train
from utils import checkpoint, metrics
from utils.conventions import CONVENTIONS
from utils.errors import Interrupted, UserError
from utils.files import writing
from utils.image import Pixels, read_image, to_tensor, write_image
from utils.photo.encode import write_photograph
from utils.reference_free import quality
from utils.runtime import count_macs

ROOT = Path(__file__).resolve().parents[1]
Picture = Callable[..., Pixels]

TINY = ["--train-pairs", "4", "--test-pairs", "2", "--image-size", "32"]
TINY_NETWORK = ["--units", "1", "--channels", "16", "--scales", "2"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Untrained weights of a small network, as train.py would write them."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"units": 1, "channels": 16}
    state = JDNet(JDNetConfig(**arguments)).state_dict()
    path = tmp_path / "weights.pt"
    checkpoint.save(path, {"network": "jdnet", "arguments": arguments, "state_dict": state})
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def results(folder: Path) -> set[str]:
    """What lies in an output folder of show.py besides its record."""
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {file.as_posix() for file in files} - {"derained.jsonl"}


@pytest.mark.slow
def test_train_then_eval_then_show(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    short = ["--steps", "4", "--batch-size", "2", "--patch-size", "16", "--device", "cpu"]
    trained = run("train.py", *TINY, *TINY_NETWORK, *short, "--run", str(folder))
    assert trained.returncode == 0, trained.stderr
    weights = ["--weights", str(folder / "best.pt")]
    flags = ["--device", "cpu", "--output", str(tmp_path / "scores")]
    scored = run("eval.py", *TINY[2:], *weights, *flags)
    assert scored.returncode == 0, scored.stderr
    first, second = (
        out.split("synthetic, light rain, 2 pairs")[1] for out in (trained.stdout, scored.stdout)
    )
    assert first.split("written")[0] == second.split("written")[0]

    shown = run("show.py", str(folder / "strips"), *weights, "--output", str(tmp_path / "out"))
    assert shown.returncode == 0, shown.stderr
    names = {file.name for file in (folder / "strips").iterdir()}
    assert results(tmp_path / "out") == names


ERRORS = [
    (["train.py", "rain100x"], "no preset 'rain100x'"),
    (["train.py", "--lrr", "1"], "did you mean --lr?"),
    (["train.py", "rain12"], "--train-folder"),
    (["train.py", *TINY, "--patch-size", "16", "--run", "LICENSE"], "LICENSE"),
    (["eval.py", "rain100l"], "rain100l-small"),
    (["eval.py", "--weights", "nowhere.pt"], "nowhere.pt"),
    (["show.py", "nowhere.png"], "nowhere.png"),
    (["tools/score.py", "a", "b", "c"], "DERAINED [CLEAN]"),
    (["tools/convert_checkpoint.py", "nowhere.pt", "x.pt"], "nowhere.pt"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_errors_are_one_line_and_a_status(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err


@pytest.mark.slow
def test_a_script_ends_with_status_2_and_one_line() -> None:
    result = run("train.py", "rain100x")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)


SCRIPTS = ["train", "eval", "show"]
TOOLS = [
    f"tools.{path.stem}"
    for path in sorted((ROOT / "tools").glob("*.py"))
    if "__main__" in path.read_text()
]


@pytest.mark.parametrize("name", [*SCRIPTS, *TOOLS])
def test_help_begins_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(name)
    command = f"python -m {name}" if name in TOOLS else f"python {name}.py"
    examples = str(module.__doc__)
    assert f"\n\n    {command} " in examples
    assert examples.count(f"\n    {command}") >= (1 if name in TOOLS else 2)
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    takes_preset = name in ("train", "eval", "tools.check_data", "tools.show_patches")
    presets = f"Presets: {', '.join(CONFIGS)}.\n\n" * takes_preset
    assert shown.startswith(f"{examples}\n{presets}usage: {command} ")
    assert "show this help message" in shown


# --- eval ---------------------------------------------------------------------------------------


def test_evaluate_scores_rainy_and_derained(tmp_path: Path, picture: Picture) -> None:
    class Half(JDNet):
        def forward(self, rainy: torch.Tensor, window: object = None) -> torch.Tensor:
            return rainy / 2

    clean = (picture() // 2).astype(np.uint8)
    pairs = [Pair("a", clean * 2, clean), Pair("b", clean, clean)]
    network = Half(JDNetConfig(units=1, channels=16)).train()
    scores = evaluate(Derainer(network), pairs, CONVENTIONS, strip_writer(tmp_path))
    assert network.training
    assert scores.pairs == 2
    by_name = {(row.name, row.convention): row for row in scores.rows}
    assert by_name["a", "y"].psnr == float("inf")
    assert by_name["b", "y"].rainy_psnr == float("inf")
    assert by_name["a", "rgb"].rainy_psnr < 20
    strip = read_image(tmp_path / "a.png")
    assert np.array_equal(strip[:, -clean.shape[1] :], clean)

    write_scores(tmp_path, scores, {"weights": "w"})
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(rows) == 2 * len(CONVENTIONS)
    assert float(rows[0]["rainy_psnr"]) == by_name["a", "y"].rainy_psnr
    assert json.loads((tmp_path / "scores.json").read_text())["mean"]["y"]["psnr"] == "inf"


def test_compare_sets_networks_side_by_side(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / "a" / "prenet", tmp_path / "b" / "prenet"]
    other = PReNet(PReNetConfig(stages=1, channels=4))
    arguments = {"stages": 1, "channels": 4}
    for run in runs:
        checkpoint.save_weights(
            run / "best.pt", checkpoint.Weights(other.state_dict(), "prenet", arguments, {})
        )
    output = tmp_path / "scores"
    files = [str(file) for file in (weights, *runs)]
    flags = ["--compare", *files, "--conventions", "y", "--output", str(output)]
    eval_script.main([*TINY[2:], *flags])
    shown = capsys.readouterr().out
    assert "| rainy input " in shown
    rows = [line.split("|") for line in shown.splitlines() if "Net " in line]
    assert [row[1].strip() for row in rows] == ["JDNet", "PReNet", "PReNet"]
    parameters = [
        sum(p.numel() for p in n.parameters()) for n in (JDNet(JDNetConfig(1, 16)), other, other)
    ]
    assert [row[3].strip() for row in rows] == [f"{count:,}" for count in parameters]
    assert len(list(output.rglob("scores.json"))) == 3
    assert "one folder per method" in shown
    other_suffix = weights.with_suffix(".copy")
    other_suffix.write_bytes(weights.read_bytes())
    files = [str(weights), str(other_suffix)]  # of one name without their suffixes
    flags = ["--compare", *files, "--conventions", "y", "y", "--ensemble"]
    eval_script.main([*TINY[2:], *flags, "--output", str(tmp_path / "same")])
    assert ", ensemble: PSNR / SSIM" in capsys.readouterr().out
    assert len(list((tmp_path / "same").rglob("scores.json"))) == 2
    with pytest.raises(UserError, match="--weights does not go with --compare"):
        eval_script.main([*TINY[2:], *flags, "--weights", str(weights)])


@pytest.fixture
def real_pairs(tmp_path: Path, picture: Picture) -> list[str]:
    """Flags of eval.py for two pairs whose ground truth is known in the left half."""
    folder = tmp_path / "pairs"
    half = np.zeros((24, 32, 3), np.uint8)
    half[:, :16] = 255
    for seed, name in enumerate(("clip_1", "clip_2")):
        clean = picture(seed=seed) // 2
        write_image(folder / "clean" / f"{name}.png", clean)
        write_image(folder / "mask" / f"{name}.png", half)
        rainy = clean + np.where(half, 10, 90)
        write_image(folder / "rainy" / f"{name}.png", rainy.astype(np.uint8))
    return ["real-pairs", "--test-folder", str(folder), "--output", str(tmp_path / "scores")]


def test_eval_scores_inside_the_mask(
    real_pairs: list[str], weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eval_script.main([*real_pairs, "--weights", str(weights), "--match", "*_2"])
    assert "real-pairs, 1 pairs" in capsys.readouterr().out
    rows = csv.DictReader((tmp_path / "scores" / "scores.csv").read_text().splitlines())
    (psnr,) = (float(row["rainy_psnr"]) for row in rows if row["convention"] == "rgb")
    assert psnr == pytest.approx(20 * np.log10(255 / 10), abs=1e-10)
    strip = read_image(tmp_path / "scores" / "strips" / "clip_2.png")
    assert (strip[:, :-16, 3] == 255).all()
    assert (strip[:, -16:, 3] == 0).all()


def test_compare_takes_images_of_other_methods(
    real_pairs: list[str], weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Matched by name, in any format; without parameters, multiply-adds and seconds."""
    for name in ("clip_1", "clip_2"):
        derained = read_image(tmp_path / "pairs" / "clean" / f"{name}.png")
        derained[:, 16:] = 0  # outside the mask
        write_image(tmp_path / "other" / f"{name}.tiff", derained)
    flags = [*real_pairs, "--conventions", "rgb", "--compare", str(weights)]
    eval_script.main([*flags, f"Other={tmp_path / 'other'}"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert [cell.strip() for cell in rows[-1][1:-1]] == [
        *["Other", str(tmp_path / "other"), "", "", "", "inf / 1.0000"],
    ]
    assert (tmp_path / "scores" / "Other" / "scores.csv").is_file()
    (tmp_path / "other" / "clip_2.tiff").rename(tmp_path / "other" / "clip_3.tiff")
    with pytest.raises(UserError, match=r"Other=.*1 images without a partner.*: clip_2"):
        eval_script.main([*flags, f"Other={tmp_path / 'other'}"])
    write_image(tmp_path / "scores" / "a" / "clip_1.png", derained)
    write_image(tmp_path / "scores" / "a" / "clip_2.png", derained)
    with pytest.raises(UserError, match="contains the images of Other"):
        eval_script.main([*flags, f"Other={tmp_path / 'scores' / 'a'}"])
    for wrong, message in (("Other=nowhere", "no folder nowhere"), ("=x", "NAME=FOLDER")):
        with pytest.raises(UserError, match=message):
            eval_script.main([*flags, wrong])


def test_eval_scores_photographs_without_ground_truth(
    weights: Path, tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate("ab"):
        write_image(tmp_path / "photos" / f"{name}.png", picture(seed=seed))
    flags = ["real", "--layout", "photographs", "--test-folder", str(tmp_path / "photos")]
    flags += ["--weights", str(weights), "--output", str(tmp_path / "scores")]
    eval_script.main(flags)
    shown = capsys.readouterr().out
    assert "photos, 2 photographs: lower is better" in shown
    rows = list(csv.DictReader((tmp_path / "scores" / "quality.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["a", "b", "a", "b"]
    expected = quality(picture(seed=1))
    assert float(rows[1]["brisque"]) == expected.brisque
    assert rows[0]["niqe"] == "nan"  # too small
    line = next(line for line in shown.splitlines() if line.startswith("rainy input"))
    assert line.split()[2:] == [
        "-",
        *(f"{np.mean([float(r[k]) for r in rows[:2]]):.2f}" for k in ("brisque", "piqe")),
    ]
    with pytest.raises(UserError, match=r"show\.py writes the --report"):
        eval_script.main([*flags, "--report"])
    with pytest.raises(UserError, match="named like 'c'"):
        eval_script.main([*flags, "--match", "c"])


@pytest.mark.slow
def test_macs_are_those_of_the_specification() -> None:
    """GFLOP are twice these. Ours are fewer: one map for gamma, scales fused at their own size."""
    assert count_macs(PReNet(), 321, 481) * 2 / 1e9 == pytest.approx(312.2, abs=0.1)
    assert count_macs(DCSFN(), 64, 64) > 0
    pixels, shifts, units = 321 * 481, 49, 32
    released_gamma = 2 * pixels * shifts * (2 * 4 + 2) * units
    aggregation = 2 * pixels * shifts * 8 * units
    ours = 2 * pixels * shifts * (4 + 8) * units
    scales = [(161, 241), (81, 121), (41, 61), (21, 31)]
    fusion_saved = 2 * 32 * 32 * units * sum(pixels - h * w for h, w in scales)
    expected = 420.9e9 - released_gamma + ours - fusion_saved
    assert aggregation == pytest.approx(3.87e9, rel=1e-2)
    assert count_macs(JDNet(), 321, 481) * 2 == pytest.approx(expected, rel=1e-3)


def test_eval_says_which_pair_is_too_small(picture: Picture) -> None:
    pairs = [Pair("tiny", picture(8, 8), picture(8, 8))]
    with pytest.raises(UserError, match=r"cannot score tiny in y: SSIM needs at least 11x11"):
        evaluate(Derainer(JDNet(JDNetConfig(units=1, channels=16))), pairs, ["y"])


def test_table_shows_published_rows_on_their_own_data_only() -> None:
    rows = tuple(
        PairScore(str(i), convention, 26.9, 0.838, 33.5, 0.95)
        for i in range(100)
        for convention in CONVENTIONS
    )
    old = Folders("rain100l", None, Path("x"))
    text = table(Scores(rows), old, "ours")
    assert "rain100l, old release, 100 pairs" in text
    assert "37.48" in text  # PReNet
    assert "38.65" not in text  # JDNet's paper has the new release
    (prenet,) = (line for line in text.splitlines() if line.startswith("PReNet"))
    header = next(line for line in text.splitlines() if "y-float" in line)
    assert prenet.index("37.48") < header.index("y-prenet") + len("y-prenet") <= len(prenet)
    short = table(Scores(tuple(r for r in rows if r.convention == "y")), old, "ours")
    assert "37.48   0.979 in y-prenet" in short
    assert "published" not in table(Scores(rows[:40]), old, "ours")
    foreign = table(Scores(rows), replace(old, dataset="mine"), "ours")
    assert "published" not in foreign
    assert foreign.startswith("mine, 100 pairs")
    new = replace(old, dataset="rain200l")
    assert "38.65" not in table(Scores(rows), new, "ours")  # 100 pairs are not its 200
    assert "published" not in table(Scores(rows), Synthetic(), "ours")


def test_eval_refuses_unknown_networks(tmp_path: Path, weights: Path) -> None:
    payload = checkpoint.load(weights)
    checkpoint.save(tmp_path / "other.pt", {**payload, "network": "othernet"})
    with pytest.raises(UserError, match="no network 'othernet': this version has jdnet, dcsfn"):
        eval_script.main(["--weights", str(tmp_path / "other.pt")])
    checkpoint.save(tmp_path / "odd.pt", {**payload, "arguments": {"wings": 2}})
    with pytest.raises(UserError, match=r"odd\.pt.*wings"):
        eval_script.main(["--weights", str(tmp_path / "odd.pt")])


def test_bare_weights_take_the_network_of_the_flags(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(checkpoint.load_weights(weights).state, tmp_path / "bare.pt")
    common = [*TINY[2:], "--weights", str(tmp_path / "bare.pt"), "--output", str(tmp_path / "s")]
    with pytest.raises(UserError, match="does not fit this JDNet"):
        eval_script.main(common)
    eval_script.main([*common, "--units", "1", "--channels", "16"])
    assert "rainy input" in capsys.readouterr().out


# --- show ---------------------------------------------------------------------------------------


def test_show_keeps_size_name_depth_alpha_and_orientation(
    tmp_path: Path, weights: Path, picture: Picture
) -> None:
    folder = tmp_path / "in"
    write_image(folder / "plain.jpg", picture(20, 30))
    alpha = np.dstack([picture(), picture()[..., :1]])
    write_image(folder / "alpha.png", alpha)
    write_image(folder / "deep.png", picture().astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(20, 30)).save(folder / "turned.jpg", exif=exif)
    output = tmp_path / "out"
    show.main([str(folder), "--weights", str(weights), "--output", str(output), "--strips"])
    assert read_image(output / "plain.png").shape == (20, 30, 3)
    assert np.array_equal(read_image(output / "alpha.png")[..., 3], alpha[..., 3])
    assert read_image(output / "deep.png").dtype == np.uint16
    assert read_image(output / "turned.png").shape == (30, 20, 3)
    strip = read_image(output / "strips" / "plain.png")
    assert np.array_equal(strip[:, :30], read_image(folder / "plain.jpg"))
    assert np.array_equal(strip[:, -30:], read_image(output / "plain.png"))


def test_default_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own run first, then the shipped weights of this preset, never of another."""
    monkeypatch.chdir(tmp_path)
    assert default_weights("rain100l-small") == WEIGHTS / "jdnet-small-rain100l.safetensors"
    with pytest.raises(UserError, match=r"rain100l: .*--weights; .* for rain100l-small$"):
        default_weights("rain100l")
    own = Path("runs/rain100l/best.pt")
    own.parent.mkdir(parents=True)
    own.touch()
    assert default_weights("rain100l") == own


def test_shipped_weights_are_those_of_the_card(tmp_path: Path) -> None:
    """`show.py` with default weights also gains 3 dB on an unseen scene."""
    card = (WEIGHTS / "README.md").read_text()
    shipped = [WEIGHTS / preset.weights for preset in PRESETS.values() if preset.weights]
    assert set(shipped) == set(WEIGHTS.glob("*.safetensors"))
    for weights in shipped:
        assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    pair = SyntheticPairs("test", 1, 96)[0]
    write_image(tmp_path / "in.png", pair.rainy)
    show.main([str(tmp_path / "in.png"), "--output", str(tmp_path / "out")])
    before, after = (
        metrics.score(to_tensor(image), to_tensor(pair.clean), "y").psnr.item()
        for image in (pair.rainy, read_image(tmp_path / "out" / "in.png"))
    )
    assert after > before + 3


def test_the_kind_of_rain_selects_the_weights(
    tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "in.png", picture())
    command = [str(tmp_path / "in.png"), "--output", str(tmp_path / "out")]
    for kind, name in (("light", "rain100l"), ("heavy", "rain100h"), ("photo", "real")):
        show.main([*command, "--kind", kind])
        assert f"jdnet-small-{name}.safetensors, written to" in capsys.readouterr().out


def test_an_ensemble_is_named_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = WEIGHTS / "jdnet-small-real.safetensors"
    command = ["synthetic", "--test-pairs", "1", "--image-size", "32", "--conventions", "y"]
    command += ["--weights", str(weights), "--output", str(tmp_path)]
    found = {}
    for flags in ([], ["--ensemble"]):
        eval_script.main([*command, *flags])
        assert (f"({weights}, ensemble)" in capsys.readouterr().out) == bool(flags)
        summary = json.loads((tmp_path / "scores.json").read_text())
        assert summary["ensemble"] == bool(flags)
        found[bool(flags)] = summary["mean"]["y"]["psnr"]
    assert found[True] != found[False]


def test_show_leaves_out_what_it_cannot_read(
    tmp_path: Path, weights: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "in" / "a.png", picture())
    (tmp_path / "in" / "b.png").write_text("no image")
    (tmp_path / "in" / "._a.png").write_text("what some systems leave behind")
    (tmp_path / "in" / "c.TXT").write_text("a list")
    (tmp_path / "in" / "below").mkdir()
    command = [str(tmp_path / "in"), "--weights", str(weights), "--output", str(tmp_path / "o")]
    with pytest.raises(UserError, match="skipped 1 of 2 files"):
        show.main(command)
    printed = capsys.readouterr()
    assert "not derained, of another kind: 1 files (.txt)" in printed.out
    assert "not derained: what is in 1 folders (below)" in printed.out
    assert "derained 1 of 2 with" in printed.out
    assert re.search(r"skipped: cannot read .*b.png", printed.err)
    show.main([str(tmp_path / "in" / "*a.png"), *command[1:]])  # without the hidden file
    assert "derained 1 of 1 with" in capsys.readouterr().out
    assert results(tmp_path / "o") == {"a.png"}


def test_show_never_overwrites(tmp_path: Path, weights: Path, picture: Picture) -> None:
    for name in ("in/a.png", "in/b.png", "in/b.jpg", "other/a.png"):
        write_image(tmp_path / name, picture())
    flags = ["--weights", str(weights), "--output"]
    with pytest.raises(UserError, match="is an input, too"):
        show.main([str(tmp_path / "in"), *flags, str(tmp_path / "in")])
    with pytest.raises(UserError, match="contains the inputs"):
        show.main([str(tmp_path / "in" / "a.png"), *flags, str(tmp_path / "in")])
    write_image(tmp_path / "tree" / "a.png", picture())
    write_image(tmp_path / "tree" / "strips" / "a.png", picture())
    command = [str(tmp_path / "tree"), *flags, str(tmp_path / "out2"), "--recursive"]
    with pytest.raises(UserError, match="would be a result and a strip"):
        show.main([*command, "--strips"])
    show.main(command)
    with pytest.raises(UserError, match="two inputs have the same name"):
        show.main([str(tmp_path / "in"), str(tmp_path / "other"), *flags, str(tmp_path / "out")])
    show.main([str(tmp_path / "in"), *flags, str(tmp_path / "out")])
    assert results(tmp_path / "out") == {"a.png", "b.png.png", "b.jpg.png"}


@pytest.mark.parametrize("image_format", ["png", "jpg", "tiff", "webp", "same"])
def test_show_writes_the_format_asked_for(
    tmp_path: Path, weights: Path, picture: Picture, image_format: str
) -> None:
    """The picture keeps its tags in each, and a second run leaves the files as they are."""
    source, output = tmp_path / "a b.JPG", tmp_path / "out"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture()[..., 0]).save(source, icc_profile=profile)
    flags = ["--weights", str(weights), "--output", str(output), "--format", image_format]
    show.main([str(source), *flags, "--quality", "30"])
    names = {"jpg": "a b.jpg", "tiff": "a b.tif", "webp": "a b.webp", "same": "a b.JPG"}
    path = output / names.get(image_format, "a b.png")
    assert results(output) == {path.name}
    with Image.open(path) as file:
        assert file.format == {"jpg": "JPEG", "same": "JPEG"}.get(
            image_format, image_format.upper()
        )
        assert file.mode == ("RGB" if image_format == "webp" else "L")
        assert file.info.get("icc_profile") == (None if image_format == "webp" else profile)
    written = path.read_bytes()
    path.write_text("mine")
    show.main([str(source), *flags, "--skip-existing"])
    assert path.read_text() == "mine"
    show.main([str(source), *flags])
    if image_format in ("jpg", "same", "webp"):
        assert len(path.read_bytes()) > 1.3 * len(written)  # the default quality is higher


def test_show_keeps_the_tree_and_expands_patterns(
    tmp_path: Path, weights: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs of an earlier run inside the folder are no inputs."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "one/a.png", "one/two/b.jpg", "one/.thumbnails/c.png"):
        write_image(Path("in") / name, picture())
    flags = ["--weights", str(weights), "--output"]
    for _ in range(2):
        show.main(["in", "--recursive", *flags, "in/out"])
        assert results(Path("in/out")) == {"a.png", "one/a.png", "one/two/b.png"}
    show.main(["in/*.png", "in/one/*/*.jpg", *flags, "matched"])
    assert results(Path("matched")) == {"a.png", "b.png"}
    with pytest.raises(UserError, match="two inputs have the same name"):
        show.main(["in/a.png", "in/one/*.png", *flags, "clash"])
    with pytest.raises(UserError, match=r"no file or folder in/\*\.gif"):
        show.main(["in/*.gif", *flags, "matched"])
    with pytest.raises(UserError, match="is an input, too"):
        show.main(["in", "--recursive", *flags, "in"])


def test_show_stops_when_it_cannot_write(
    tmp_path: Path, weights: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / "in" / name, picture())
    output = tmp_path / "out"
    flags = [str(tmp_path / "in"), "--weights", str(weights), "--output"]
    with pytest.raises(UserError, match=r"cannot write .*a.png: File exists"):
        show.main([*flags, str(tmp_path / "in" / "a.png")])

    def fill_the_disk(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "b.png":
            with writing(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        write_photograph(path, *arguments, **options)

    def interrupt(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "b.png":
            raise KeyboardInterrupt
        write_photograph(path, *arguments, **options)

    monkeypatch.setattr(show, "write_photograph", interrupt)
    with pytest.raises(Interrupted, match="interrupted; 1 of 3 files are done: run the command"):
        show.main([*flags, str(tmp_path / "stopped")])

    monkeypatch.setattr(show, "write_photograph", fill_the_disk)
    message = r"cannot write .*b.png: No space left on device; 1 of 3 files are done: run .*--skip"
    with pytest.raises(UserError, match=message):
        show.main([*flags, str(output)])
    assert results(output) == {"a.png"}


def test_weights_know_their_network(tiny: Config) -> None:
    """Contradicting flags are refused, and scores.json describes the weights."""
    train(tiny)
    assert tiny.run is not None
    common = ["--weights", str(tiny.run / "best.pt"), "--output", str(tiny.run / "again")]
    with pytest.raises(UserError, match=r"already specifies its network: remove"):
        eval_script.main([*common, "--units", "7"])
    eval_script.main([*TINY[2:], *common, "--name", "mine"])  # a name is no network's flag
    summary = json.loads((tiny.run / "again" / "scores.json").read_text())
    assert summary["arguments"]["units"] == 1
    digest = hashlib.sha256((tiny.run / "best.pt").read_bytes()).hexdigest()
    assert summary["sha256"] == digest
    with pytest.raises(UserError, match=r"latest.pt is the resume state of a run: .* best.pt"):
        eval_script.main(["--weights", str(tiny.run / "latest.pt")])
