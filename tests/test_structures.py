"""Structures in the scene, drops near the camera, and patches without rain."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from config.schema import Camera, Rain
from data import Pair, Patches
from data.drops import draw_drops
from data.rain_layers import LayerSource, exchange_rain, make_patch, streak_direction
from data.structures import ALONG_THE_RAIN, KINDS, SPREAD, _axes, draw_structures
from data.synthetic import RAINS, add_rain
from utils.image import Pixels

Picture = Callable[..., Pixels]
BLACK, GREY = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 120, np.uint8)


def streaks(angle: float, seed: int = 0, side: int = 64) -> Pixels:
    """A rain layer of streaks that fall at `angle` degrees from the vertical."""
    rain = RAINS["light"]._replace(angle=(angle, angle), veil=(0, 0))
    black = np.zeros((side, side, 3), np.uint8)
    return add_rain(black, rain, np.random.default_rng(seed))[..., 0]


def apart(a: float, b: float) -> float:
    """Angle between two directions, 0 to 90 degrees."""
    return abs((a - b + 90) % 180 - 90)


@pytest.fixture
def source() -> LayerSource:
    return LayerSource([streaks(angle, side=96) for angle in (-20, 0, 30)])


def pair_of(clean: Pixels, layer: Pixels) -> Pair:
    return Pair("rain-1", np.minimum(255, clean + layer[..., None].astype(int)), clean)


@pytest.mark.parametrize("angle", [-80, -45, -20, 0, 10, 35, 70])
def test_direction_of_streaks(angle: float) -> None:
    errors = [apart(streak_direction(streaks(angle, seed)), angle) for seed in range(12)]
    assert np.median(errors) < 3
    assert max(errors) < 10


def test_direction_of_a_layer_without_streaks() -> None:
    assert streak_direction(BLACK[..., 0]) == 0


def test_patches_stay_as_they_were_without_the_new_shares(
    source: LayerSource, picture: Picture
) -> None:
    rain = Rain(exchange=0.6, modelled=0.2)
    clean = picture(64, 64)
    own = pair_of(clean, streaks(5)).rainy
    for index in range(30):
        rainy, scene = make_patch(own, clean, [source], rain, 7, index)
        assert scene is clean
        random = np.random.default_rng([7, 2, index])
        before = exchange_rain(own, clean, [source], rain, random)
        assert np.array_equal(rainy, before)


def test_patches_depend_on_seed_and_index(source: LayerSource, picture: Picture) -> None:
    pairs = [pair_of(picture(70, 80, seed=i), streaks(i, side=80)[:70]) for i in range(3)]
    rain = Rain(0.5, 0.2, structures=0.6, bright=0.3, drops=0.5, dry=0.2)
    one, two, other = (
        Patches(pairs, 48, seed, "flip", [picture(60, 60)], [source], rain, Camera(noise=2))
        for seed in (0, 0, 1)
    )
    backwards = {i: two[i] for i in reversed(range(30))}
    assert all(torch.equal(one[i].rainy, backwards[i].rainy) for i in range(30))
    assert all(torch.equal(one[i].clean, backwards[i].clean) for i in range(30))
    assert not any(torch.equal(one[i].rainy, other[i].rainy) for i in range(30))


@pytest.mark.parametrize("exchanged", [0, 1])
def test_structures_are_in_both_images_and_the_rain_over_them(
    exchanged: int, source: LayerSource
) -> None:
    own = pair_of(GREY, streaks(5)).rainy
    rain = Rain(exchanged, structures=1)
    for index in range(30):
        plain, _ = make_patch(own, GREY, [source], replace(rain, structures=0), 0, index)
        rainy, clean = make_patch(own, GREY, [source], rain, 0, index)
        layer = plain.astype(int) - GREY
        known = plain < 255  # where it is 255, the layer of a pair is only a lower bound
        assert np.array_equal(rainy[known], np.minimum(255, clean + layer)[known])
        assert (rainy >= clean).all()
    changed = [
        (make_patch(own, GREY, [source], rain, 0, index)[1] != GREY).any(axis=2).mean()
        for index in range(60)
    ]
    assert np.mean(np.array(changed) > 0.02) > 0.9
    assert 0.15 < np.mean(changed) < 0.7


@pytest.mark.parametrize("exchanged", [0, 1])
def test_bright_scenes_keep_their_rain(
    exchanged: int, source: LayerSource, picture: Picture
) -> None:
    scene = picture(64, 64)
    own = pair_of(scene, streaks(5)).rainy
    rain = Rain(exchanged, bright=1)
    contrast = []
    for index in range(40):
        plain, _ = make_patch(own, scene, [source], replace(rain, bright=0), 0, index)
        rainy, clean = make_patch(own, scene, [source], rain, 0, index)
        layer = plain.astype(int) - scene
        known = plain < 255
        assert np.array_equal(rainy[known], np.minimum(255, clean + layer)[known])
        contrast.append(int(np.ptp(clean)))
        assert clean.max() >= min(150, scene.max())
    assert np.mean(contrast) == pytest.approx(np.ptp(scene) / 2, rel=0.25)


def test_modelled_rain_lies_over_structures() -> None:
    rain = Rain(modelled=1, structures=1)
    for index in range(10):
        plain, _ = make_patch(None, GREY, [], replace(rain, structures=0), 0, index)
        rainy, clean = make_patch(None, GREY, [], rain, 0, index)
        same = (clean == GREY).all(axis=2)
        assert np.array_equal(rainy[same], plain[same])
        assert (rainy != plain).any()


def test_most_structures_lie_along_the_rain() -> None:
    angle = 25.0
    found = []
    for seed in range(300):
        drawn = draw_structures(GREY, angle, np.random.default_rng(seed)).astype(int)
        found.append(apart(streak_direction(np.abs(drawn - GREY).max(axis=2)), angle))
    near = np.mean(np.array(found) < SPREAD + 6)
    assert ALONG_THE_RAIN - 0.2 < near < ALONG_THE_RAIN + 0.15


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_structure_shows(kind: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
    shown = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        cover, side = kind(_axes(48, 64, 10, random), random)
        assert cover.shape == side.shape == (48, 64)
        assert 0 <= cover.min() <= cover.max() <= 1
        assert np.abs(side).max() <= 0.5
        shown += bool(0.01 < cover.mean() < 0.9)
    assert shown >= 28


def test_drops_are_in_the_rainy_image_only(source: LayerSource) -> None:
    rain = Rain(exchange=1, drops=1)
    alone = 0
    for index in range(60):
        plain, _ = make_patch(None, GREY, [source], replace(rain, drops=0), 0, index)
        rainy, clean = make_patch(None, GREY, [source], rain, 0, index)
        assert np.array_equal(clean, GREY)
        assert (rainy > clean).any()
        over = (rainy >= plain).all()
        assert over or (rainy >= clean).all()
        alone += not over
    assert 18 <= alone <= 42  # every other patch has drops and no streaks


def test_drops_are_short_bars_along_their_direction() -> None:
    peaks, angles, covered = [], [], []
    for seed in range(60):
        rain = draw_drops(BLACK, 20, np.random.default_rng(seed)).max(axis=2)
        peaks.append(rain.max())
        covered.append((rain > 10).mean())
        angles.append(streak_direction(rain))
    assert np.median([apart(angle, 20) for angle in angles]) < 6
    assert min(peaks) >= 15
    assert max(peaks) <= 245
    assert np.ptp(peaks) > 120
    assert 0.01 < np.median(covered) < 0.15


def test_dry_patches_are_equal(source: LayerSource) -> None:
    own = pair_of(GREY, streaks(5)).rainy
    rain = Rain(exchange=0.5, structures=0.5, drops=0.5, dry=0.3)
    equal, structured = 0, 0
    for index in range(400):
        rainy, clean = make_patch(own, GREY, [source], rain, 0, index)
        if np.array_equal(rainy, clean):
            equal += 1
            structured += not np.array_equal(clean, GREY)
    assert equal == pytest.approx(120, abs=30)
    assert structured == pytest.approx(equal / 2, abs=20)
