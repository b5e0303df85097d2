"""Rain is removed at the scale at which it falls."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import show
from config.networks import JDNetConfig
from models import Derainer, Network
from models.scale import choose_scale, derain_reduced, look_again, streak_width
from utils.image import write_image
from utils.photo import record
from utils.photo.shots import Shot

WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "jdnet-small-real.safetensors"


def streaks(height: int, width: int, factor: float, angle: float = 15) -> Tensor:
    """White streaks on black, about 2 * factor pixels wide: [3, H, W]."""
    random = np.random.default_rng(0)
    small = int(height / factor) + 80, int(width / factor) + 80
    seeds = (random.random(small) > 0.995).astype(np.float32)
    kernel = np.zeros((31, 31), np.float32)
    kernel[:, 15] = 1
    turned = cv2.warpAffine(kernel, cv2.getRotationMatrix2D((15, 15), angle, 1), (31, 31))
    layer = cv2.GaussianBlur(cv2.filter2D(seeds, -1, turned), (0, 0), 0.8)[40:-40, 40:-40]
    layer = cv2.resize(layer.clip(0, 0.4), (width, height), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(layer)[None].repeat(3, 1, 1)


class Bandpass(Network):
    """Removes what is narrower than about six pixels, as a network that knows narrow streaks."""

    def __init__(self) -> None:
        super().__init__(JDNetConfig())

    def forward(self, rainy: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(rainy, 13, 1, 6, count_include_pad=False)


def scale_of(rainy: Tensor) -> float:
    return choose_scale(Bandpass(), rainy)


def test_wide_streaks_are_wider() -> None:
    widths = [streak_width(streaks(256, 256, factor)[None]) for factor in (1, 2, 4)]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.3)
    assert widths[2] == pytest.approx(2 * widths[1], rel=0.3)
    turned = streak_width(streaks(256, 256, 2, angle=-60)[None])
    assert turned == pytest.approx(widths[1], rel=0.2)
    assert streak_width(torch.zeros(1, 3, 9, 9)) == 0


def test_the_scale_follows_the_width_of_the_streaks() -> None:
    scales = [scale_of(0.2 + streaks(1100, 1400, factor)) for factor in (1, 2, 4, 8)]
    assert scales[0] == 1
    assert scales[1] < scales[2] < scales[3]
    assert scales[3] / scales[2] == pytest.approx(2, rel=0.35)
    assert scale_of(torch.full((3, 1100, 1400), 0.5)) == 1
    assert scale_of(0.2 + streaks(255, 300, 4)) == 1


@pytest.mark.parametrize(
    ("found", "lowest", "highest"),
    [
        ([(0.049, 4.4), (0.041, 2.3), (0.034, 1.2), (0.028, 0.9)], 2, 4),  # the widest are strong
        ([(0.070, 1.8), (0.089, 2.1), (0.055, 1.3), (0.040, 0.9)], 1, 1),  # so are those between
        ([(0.002, 1.9), (0.002, 1.2), (0.001, 1.0), (0.001, 0.9)], 1, 1),  # no rain
    ],
)
def test_streaks_of_several_widths(
    monkeypatch: pytest.MonkeyPatch,
    found: list[tuple[float, float]],
    lowest: float,
    highest: float,
) -> None:
    """Given strength and width of the rain found at the scales 1, 2, 4 and 8."""
    left = iter(found)
    monkeypatch.setattr("models.scale._measure", lambda *_: next(left))
    assert lowest <= scale_of(torch.zeros(3, 1100, 1400)) <= highest


@pytest.mark.parametrize("size", [(40, 61), (3, 500), (1, 1)])
def test_any_size_at_any_scale(size: tuple[int, int]) -> None:
    rainy = torch.rand(3, *size)
    for scale in (1, 1.37, 4, 64):
        assert derain_reduced(lambda image: image, rainy, scale).allclose(rainy, atol=1e-6)
        assert derain_reduced(lambda image: image / 2, rainy, scale).shape == rainy.shape


def test_smooth_rain_is_removed_at_half_size() -> None:
    """A network that removes an offset removes it at every scale."""
    rainy = torch.rand(3, 50, 70)
    derained = derain_reduced(lambda image: image - 0.1, rainy, 2.5)
    torch.testing.assert_close(derained, rainy - 0.1)


def test_a_derainer_takes_the_scale() -> None:
    rainy = 0.2 + streaks(700, 600, 4)
    auto, full, half = (Derainer(Bandpass(), scale=scale) for scale in ("auto", 1, 2))
    scale = auto.choose_scale(rainy)
    assert scale > 1.5
    assert (full.choose_scale(rainy), half.choose_scale(rainy)) == (1, 2)
    assert torch.equal(auto(rainy), auto(rainy, scale=scale))
    assert torch.equal(half(rainy), full(rainy, scale=2))
    error = [float((d(rainy) - 0.2).square().mean()) for d in (auto, full)]
    assert error[0] < 0.9 * error[1]


@pytest.mark.parametrize(
    ("again", "removed"),  # shares of the rain; 0.7 is usual
    [(0, 0), (0.15, 0), (0.2, 0.53), (0.26, 1), (1, 1), (1.88, 1), (2.45, 0.53), (3.25, 0)],
)
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (96, 70)])
def test_rain_is_removed_if_a_second_look_finds_as_much(
    again: float, removed: float, size: tuple[int, int]
) -> None:
    rainy = torch.rand(3, *size)
    derained = look_again(lambda smaller: smaller - 0.1 * again, rainy, rainy - 0.1, 1)
    torch.testing.assert_close(
        rainy - derained, torch.full_like(rainy, 0.1 * removed), atol=1e-3, rtol=0
    )


def test_a_second_look_compares_regions() -> None:
    def left_half(smaller: Tensor) -> Tensor:
        rain = torch.full_like(smaller, 0.1)
        rain[..., rain.shape[2] // 2 :] = 0
        return smaller - rain

    profiles = []
    for scale in (1, 2):
        rainy = torch.rand(3, 40 * scale, 800 * scale)
        removed = (rainy - look_again(left_half, rainy, rainy - 0.1, scale)).mean((0, 1)) / 0.1
        profiles.append(removed.unflatten(0, (800, scale)).mean(1))
    for profile in profiles:  # the border, at 400, is blurred by 60 pixels at the first scale
        assert profile[:470].allclose(torch.ones(()), atol=1e-5)
        assert profile[540:].abs().max() < 1e-5
        assert (profile.diff() < 1e-5).all()
    assert profiles[0].allclose(profiles[1], atol=0.1)


def test_a_derainer_looks_again_at_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def spy(_derain: object, _rainy: Tensor, derained: Tensor, scale: float) -> Tensor:
        seen.append(scale)
        return derained

    monkeypatch.setattr("models.derainer.look_again", spy)
    rainy = 0.2 + streaks(300, 300, 1)
    for given in (None, 2.5):
        Derainer(Bandpass())(rainy, scale=given)
    Derainer(Bandpass(), scale=1)(rainy)
    assert seen == [1, 2.5]


def test_bars_stay_and_streaks_go() -> None:
    """Upright bars on a wall look like rain; the streaks beside them are rain."""
    clean = torch.full((3, 128, 640), 0.75)
    bars = (torch.arange(240) % 5 < 2).expand(3, 100, -1)
    clean[:, 14:114, :240][bars] = 0.5
    clean[..., 240:] = 0.3
    rainy = clean.clone()
    rainy[..., 340:] += streaks(128, 300, 1)
    one, auto = (Derainer(WEIGHTS, precision="float32", scale=s) for s in (1, "auto"))
    kept, gone = (slice(0, 200), slice(340, 640))
    errors = [(d(rainy) - clean).square() for d in (one, auto)]
    before, after = ([float(e[..., part].mean()) for part in (kept, gone)] for e in errors)
    assert after[0] < before[0] / 100
    assert after[1] < 1.05 * before[1]
    assert after[1] < float((rainy - clean)[..., gone].square().mean()) / 10


def test_dry_pictures_stay_as_they_are() -> None:
    smooth = torch.linspace(0, 1, 300).expand(3, 280, 300).contiguous()
    assert torch.equal(Derainer(Bandpass())(smooth), smooth)
    assert not torch.equal(Derainer(Bandpass(), scale=1)(smooth), smooth)


def test_shots_begin_at_cuts() -> None:
    shot = Shot()
    dark, bright = (np.full((48, 64, 3), value, np.uint8) for value in (40, 160))
    frames: list[np.ndarray] = [
        dark,
        dark + 2,
        bright,
        bright + 2,
        bright,
        dark.astype(np.uint16) * 257,
    ]
    assert [shot.begins_with(frame) for frame in frames] == [True, False, True, False, False, True]


def test_show_prints_the_scale_and_the_report_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Derainer, "choose_scale", lambda *_: 2.5)
    write_image(tmp_path / "a.png", np.full((48, 64, 3), 90, np.uint8))
    output = tmp_path / "out"
    command = [str(tmp_path / "a.png"), "--weights", str(WEIGHTS), "--output", str(output)]
    show.main([*command, "--report"])
    assert "a.png: derained at 1/2.5 of its size" in capsys.readouterr().out
    page = (output / "report" / "index.html").read_text()
    assert "derained at 1/2.5" in page
    assert record.read(output)[0][0].scale == 2.5
