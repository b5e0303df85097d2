"""The function behind the page, without Gradio."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageCms

from models import JDNet
from tools import app
from utils import checkpoint
from utils.errors import UserError
from utils.image import (
    Pixels,
    read_image,
    read_photograph,
    to_pixels,
    to_tensor,
    write_image,
)
from utils.inference import derain
from utils.tags import Tags

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def network() -> JDNet:
    torch.manual_seed(0)
    return JDNet(units=1, channels=16, scales=1).eval()


@pytest.fixture
def weights(tmp_path: Path, network: JDNet) -> Path:
    path = tmp_path / "runs" / "mine" / "best.pt"
    arguments = {"units": 1, "channels": 16, "scales": 1}
    state = network.state_dict()
    checkpoint.save(path, {"network": "jdnet", "arguments": arguments, "state_dict": state})
    return path


@pytest.mark.parametrize(("depth", "suffix"), [(np.uint8, ".jpg"), (np.uint16, ".tif")])
def test_a_photograph_keeps_size_bit_depth_and_profile(
    tmp_path: Path,
    network: JDNet,
    weights: Path,
    picture: Callable[..., Pixels],
    depth: type[np.unsignedinteger],
    suffix: str,
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = tmp_path / f"photo{suffix}"
    write_image(source, picture(20, 30).astype(depth), Tags(profile=profile))
    rainy = read_image(source)
    result = app.derain_file(source, weights, tmp_path / "results")
    assert (result.before.name, result.after.name) == ("photo.png", "photo-derained.png")
    expected = to_pixels(derain(network, to_tensor(rainy)), depth)
    for path, pixels in ((result.before, rainy), (result.after, expected)):
        written, tags = read_photograph(path)
        assert written.dtype == depth
        assert np.array_equal(written, pixels)
        assert tags.profile == profile
    assert re.fullmatch(rf"30 x 20 pixels, {8 * rainy.itemsize} bits: \d+\.\d s", result.text)


def test_alpha_is_kept_and_only_the_last_result(
    tmp_path: Path, weights: Path, picture: Callable[..., Pixels]
) -> None:
    rainy = np.dstack([picture(), picture()[..., :1]])
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", rainy)
        result = app.derain_file(tmp_path / f"{name}.png", weights, tmp_path / "results")
    assert np.array_equal(read_image(result.after)[..., 3], rainy[..., 3])
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"b.png", "b-derained.png"}


def test_odd_files_get_the_line_of_show(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "photo.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"^cannot read photo\.jpg: not an image of a known kind"):
        app.derain_file(tmp_path / "photo.jpg", weights, tmp_path / "results")


def test_the_weights_to_choose_from(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = [
        str(ROOT / "weights" / f"jdnet-small-{name}.safetensors")
        for name in ("real", "rain100h", "rain100l")
    ]
    assert app.find_weights() == [*shipped, "runs/mine/best.pt"]
    monkeypatch.chdir(ROOT)
    assert app.find_weights()[0] == "weights/jdnet-small-real.safetensors"


def test_without_gradio_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"no gradio: install requirements-app.txt"):
        app.main([])


def test_the_page_has_the_versions_of_the_rest() -> None:
    """All but Pillow, which Gradio limits."""
    pins, own = (
        dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements-app.txt", "requirements.txt")
    )
    assert {name for name in pins if pins[name] != own.get(name)} == {"gradio", "pillow"}
