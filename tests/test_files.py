"""Sets of any size: file lists, headers, streams, and evaluations that go on."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import data.files
import eval as eval_script
import training.run
from config.networks import JDNetConfig
from config.schema import Config, Folders, Rain, Training
from data import FolderPairs, Pair, find_pairs
from data.files import PairFiles, PairList
from data.headers import size_in_header
from data.layouts import _natural
from data.open import open_training
from data.pairs import fingerprint
from data.rain_layers import PairLayers
from evaluation.scores import Progress, read_scores
from models import Derainer, JDNet
from train import train
from training.run import build_run, loading_processes
from utils import checkpoint
from utils.errors import UserError
from utils.image import Pixels, write_image

Picture = Callable[..., Pixels]


@pytest.fixture
def folder(tmp_path: Path, picture: Picture) -> Path:
    """Six pairs whose rain is one grey layer; the last two show one scene."""
    for number in range(6):
        clean = picture(seed=min(number, 4)) // 2
        write_image(tmp_path / "set" / f"norain-{number}.png", clean)
        write_image(tmp_path / "set" / f"rain-{number}.png", clean + np.uint8(number + 1))
    return tmp_path / "set"


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No set fits in memory."""
    monkeypatch.setattr(data.files, "KEPT_PAIRS", 0)


def opened(folder: Path) -> FolderPairs:
    return FolderPairs(find_pairs(folder, "rain100"), keep=True)


def on_disk(tiny: Config, folder: Path, **training: Any) -> Config:
    """The tiny run on the pairs of a folder."""
    folders = Folders("mine", folder, None)
    recipe = replace(tiny.training, patch_size=16, **training)
    return replace(tiny, data=folders, training=recipe, workers=2)


# --- lists and headers --------------------------------------------------------------------------


def test_a_pair_list_returns_what_was_put_in() -> None:
    odd = os.fsdecode(b"\xff odd")
    rows = [("a", "x/a.png", "y/a.png"), (odd, f"x/{odd}.png", "ü.png"), ("", "b", "b")]
    files = PairList(iter(rows), "rainy-clean")
    assert list(files.rows()) == rows
    assert [(f.name, str(f.rainy), str(f.clean)) for f in files] == rows
    assert files[-1].order == "rainy-clean"
    assert [f.name for f in files[1:]] == [odd, ""]
    with pytest.raises(IndexError):
        files[3]


def test_natural_order() -> None:
    ordered = [
        "",
        "0",
        "0b",
        "a",
        "a0",
        "a2b",
        "a2c",
        "a10",
        "a10b",
        "ab",
        "b",
        "1",
        "9",
        "10",
        "10a",
    ]
    assert all(_natural(one) < _natural(two) for one, two in pairwise(ordered))
    assert _natural("a007") == _natural("a7")


def encoded(picture: Pixels, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


def test_sizes_in_headers(tmp_path: Path, picture: Picture) -> None:
    def size(content: bytes) -> tuple[int, int] | None:
        (tmp_path / "file").write_bytes(content)
        return size_in_header(str(tmp_path / "file"))

    pixels = picture(24, 32)
    png, jpeg = encoded(pixels, "PNG"), encoded(pixels, "JPEG")
    long = encoded(pixels, "JPEG", exif=b"Exif\0\0" + bytes(9000), progressive=True)
    assert [size(x) for x in (png, jpeg, long, encoded(pixels[..., 0], "PNG"))] == [(24, 32)] * 4
    write_image(tmp_path / "deep.png", pixels.astype(np.uint16))
    others = (png[:-1], jpeg[:-1], b"", b"\xff\xd8\xff\xd9", encoded(pixels, "BMP"))
    assert [size(x) for x in (*others, (tmp_path / "deep.png").read_bytes())] == [None] * 6
    assert size_in_header(str(tmp_path / "nowhere")) is None


def test_sizes_are_stored_and_the_fingerprint_notices_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Picture, streamed: None
) -> None:
    looked: list[str] = []

    def look(file: str) -> tuple[int, int] | None:
        looked.append(file)
        return size_in_header(file)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data.files, "REMEMBERED", 1)
    monkeypatch.setattr(data.files, "size_in_header", look)
    first = opened(folder)
    assert first.sizes.tolist() == [[24, 32]] * 6
    assert len(looked) == 12
    moved = opened(folder.rename(tmp_path / "moved"))
    assert (moved.fingerprint, moved.sizes.tolist()) == (first.fingerprint, first.sizes.tolist())
    assert len(looked) == 12
    file = tmp_path / "moved" / "norain-3.png"
    os.utime(file, (1, 1))
    later = opened(tmp_path / "moved")
    file.rename(file.with_name("norain-7.png"))
    (tmp_path / "moved" / "rain-3.png").rename(tmp_path / "moved" / "rain-7.png")
    renamed = opened(tmp_path / "moved")
    assert len({each.fingerprint for each in (first, later, renamed)}) == 3
    (stored, *_) = (tmp_path / "cache" / "jdnet").iterdir()
    for path in stored.parent.iterdir():
        path.write_text("damaged")
    looked.clear()
    assert opened(tmp_path / "moved").sizes.tolist() == first.sizes.tolist()
    assert len(looked) == 12


# --- streams ------------------------------------------------------------------------------------


def test_streamed_patches_are_those_of_kept_pairs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(
        "mine",
        Folders("mine", folder, None),
        Rain(exchange=0.5),
        training=Training(patch_size=16, augment="flip", validation=4),
    )
    kept = open_training(config)
    monkeypatch.setattr(data.files, "KEPT_PAIRS", 0)
    streamed = open_training(config)
    assert (kept.fingerprint, kept.left_out) == (None, 0)
    assert streamed.fingerprint == fingerprint(opened(folder))
    assert isinstance(streamed.patches.sources[0].images, PairLayers)
    for index in range(12):
        one, other = kept.patches[index], streamed.patches[index]
        assert torch.equal(one.rainy, other.rainy)
        assert torch.equal(one.clean, other.clean)
    held = replace(config, rain=Rain(), training=replace(config.training, validation=5))
    with pytest.raises(UserError, match="all training pairs show scenes of the validation pairs"):
        open_training(held)  # the last pair shows the scene of the fifth


def test_one_pair_is_decoded_at_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, streamed: None
) -> None:
    decoded: list[str] = []
    read = data.files.read_pair

    def decode(files: PairFiles) -> Pair:
        decoded.append(files.name)
        return read(files)

    monkeypatch.setattr(data.files, "read_pair", decode)
    config = Config("mine", Folders("mine", folder, folder), training=Training(patch_size=16))
    patches = open_training(config).patches
    assert decoded == []
    assert patches[0].clean.shape == (3, 16, 16)
    assert len(decoded) == 1
    with pytest.raises(UserError, match=r"25x25 do not fit rain-0 \(32x24 pixels\)"):
        open_training(replace(config, training=Training(patch_size=25)))


def test_streamed_runs_resume_bit_exact_and_only_on_their_data(
    tiny: Config, folder: Path, tmp_path: Path, streamed: None
) -> None:
    whole = on_disk(tiny, folder, schedule="multistep", milestones=())
    train(replace(whole, workers=0))
    parts = replace(whole, run=tmp_path / "parts")
    train(replace(parts, training=replace(parts.training, steps=3)))
    train(parts)
    one, other = (
        checkpoint.load(config.run / "latest.pt")["network"]
        for config in (whole, parts)
        if config.run
    )
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    os.utime(folder / "rain-2.png", (1, 1))
    with pytest.raises(UserError, match=r"data_sha256"):
        train(parts)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_of_a_stream_stops_the_run_in_one_line(
    tiny: Config, folder: Path, workers: int, streamed: None
) -> None:
    file = folder / "rain-4.png"
    file.write_bytes(file.read_bytes().replace(b"IDAT", b"xDAT"))  # beginning and end are whole
    with pytest.raises(UserError, match=r"^cannot read .*rain-4\.png: truncated") as error:
        train(replace(on_disk(tiny, folder), workers=workers))
    assert "\n" not in str(error.value)


def test_streams_are_loaded_by_all_cores(
    tiny: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.run, "cores", lambda: 7)
    config = replace(on_disk(tiny, folder), workers=None)
    assert loading_processes(build_run(config)) == 2
    monkeypatch.setattr(data.files, "KEPT_PAIRS", 0)
    assert loading_processes(build_run(config)) == 7
    assert loading_processes(build_run(replace(config, workers=0))) == 0


def test_rain_that_is_not_additive_stops_an_exchange(
    folder: Path, picture: Picture, streamed: None
) -> None:
    write_image(folder / "rain-0.png", picture(seed=77))
    config = Config(
        "mine", Folders("mine", folder, None), Rain(exchange=0.5), training=Training(patch_size=16)
    )
    with pytest.raises(UserError, match=r"cannot exchange the rain of rain-0.*--exchange 0"):
        open_training(config)


# --- evaluation ---------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Weights of a tiny network."""
    torch.manual_seed(0)
    file = tmp_path / "w.pt"
    arguments: dict[str, Any] = {"units": 1, "channels": 16, "scales": 2}
    state = JDNet(JDNetConfig(**arguments)).state_dict()
    checkpoint.save(file, {"network": "jdnet", "arguments": arguments, "state_dict": state})
    return file


def test_an_interrupted_evaluation_goes_on(
    small: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "scores"
    flags = ["rain100l", "--test-folder", str(folder), "--device", "cpu", "--output", str(output)]
    flags += ["--conventions", "y", "rgb", "--weights"]
    eval_script.main([*flags, str(small)])
    whole, _ = read_scores(output)
    assert not (output / "progress.jsonl").exists()
    derained: list[int] = []
    derain = Derainer.__call__

    def interrupt(self: Derainer, image: Any) -> Any:
        if len(derained) == stop_after:
            raise KeyboardInterrupt
        derained.append(0)
        return derain(self, image)

    def scored(weights: Path = small) -> int:
        """Number of images derained until the end or the interruption."""
        derained.clear()
        eval_script.main([*flags, str(weights)])
        return len(derained)

    monkeypatch.setattr(Derainer, "__call__", interrupt)
    stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        scored()
    lines = (output / "progress.jsonl").read_text().splitlines()
    assert [json.loads(line)[0] for line in lines[1:]] == [0, 1, 2, 3]
    with (output / "progress.jsonl").open("a") as stream:
        stream.write('[4, 0.1, [["rain-')  # half written
    assert scored() == 2
    assert "4 pairs are already scored: going on" in capsys.readouterr().out
    assert read_scores(output)[0] == whole

    for change in ("weights", "data"):
        stop_after = 4
        with pytest.raises(KeyboardInterrupt):
            scored()
        if change == "weights":
            state = checkpoint.load(small)
            state["note"] = "another file"
            checkpoint.save(small, state)
        else:
            os.utime(folder / "rain-5.png", (1, 1))
        stop_after = 100
        assert scored() == 6
        assert "other weights, data or settings" in capsys.readouterr().out


def test_progress_survives_anything_in_its_file(tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"
    for content in ("", "\n\n", "{}", '{"a": 1}\nnonsense\n[1]\n', "\xff"):
        file.write_text(content, "latin-1")
        assert Progress(file, {"a": 1}).done == {}
