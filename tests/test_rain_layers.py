"""Rain layers: extraction, exchange, and camera degradations."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from config.schema import Camera, Config, Folders, Rain, Training
from data import Pair, Patches, SyntheticPairs
from data.camera import photograph
from data.open import open_training
from data.rain_layers import (
    MAX_CROPS,
    LayerSource,
    exchange_rain,
    extract_layers,
    open_clean,
    open_layers,
    rain_layer,
)
from utils.errors import UserError
from utils.image import Pixels, write_image

Picture = Callable[..., Pixels]


def layer_of(seed: int, height: int = 24, width: int = 32) -> Pixels:
    """Sparse grey rain that saturates some pixels."""
    random = np.random.default_rng([1, seed])
    layer = random.integers(1, 200, (height, width)) * (random.random((height, width)) < 0.3)
    return np.asarray(layer, np.uint8)


def rained(clean: Pixels, layer: Pixels) -> Pixels:
    return np.asarray(np.minimum(255, clean.astype(int) + layer[..., None]), np.uint8)


def additive_pairs(picture: Picture, count: int = 3) -> list[Pair]:
    return [
        Pair(f"rain-{i}", rained(picture(seed=i), layer_of(i)), picture(seed=i))
        for i in range(count)
    ]


def write_pairs(folder: Path, pairs: list[Pair]) -> None:
    for pair in pairs:
        write_image(folder / f"{pair.name}.png", pair.rainy)
        write_image(folder / f"no{pair.name}.png", pair.clean)


def test_rain_layer_of_an_additive_pair(picture: Picture) -> None:
    (pair,) = additive_pairs(picture, 1)
    layer = rain_layer(pair)
    assert layer is not None
    assert np.array_equal(rained(pair.clean, layer), pair.rainy)
    unsaturated = (pair.clean.min(axis=2) + layer_of(0).astype(int)) <= 255
    assert unsaturated.any()
    assert np.array_equal(layer[unsaturated], layer_of(0)[unsaturated])


def test_rain_that_is_not_a_grey_layer(picture: Picture) -> None:
    (pair,) = additive_pairs(picture, 1)
    pair.clean[0, 0] = 100
    for colour in ((101, 101, 102), (100, 100, 99)):  # not grey; darker
        pair.rainy[0, 0] = colour
        assert rain_layer(pair) is None
    pair.rainy[0, 0] = 101
    assert rain_layer(pair) is not None
    modelled = SyntheticPairs("train", 1, 64)
    assert rain_layer(modelled[0]) is None
    with pytest.raises(UserError, match=r"000-astro.*--exchange 0"):
        extract_layers(modelled)


def where(layer: Pixels, piece: np.ndarray) -> list[tuple[int, int, bool]]:
    """Every position and mirror state at which `layer` equals `piece`."""
    h, w = piece.shape
    return [
        (top, left, mirrored)
        for top in range(layer.shape[0] - h + 1)
        for left in range(layer.shape[1] - w + 1)
        for mirrored in (False, True)
        if np.array_equal(layer[top : top + h, left : left + w][:, :: -1 if mirrored else 1], piece)
    ]


def test_an_exchanged_layer_is_a_crop_of_a_source_layer(picture: Picture) -> None:
    pairs = [p._replace(clean=p.clean // 8, rainy=rained(p.clean // 8, layer_of(i)))
             for i, p in enumerate(additive_pairs(picture))]  # fmt: skip
    sources, always = [extract_layers(pairs)], Rain(exchange=1)
    seen = set()
    for seed in range(60):
        clean = pairs[0].clean[:12, :10]
        own, random = pairs[0].rainy[:12, :10], np.random.default_rng(seed)
        rainy = exchange_rain(own, clean, sources, always, random)
        piece = (rainy.astype(int) - clean)[..., 0]
        (found,) = [(i, *place) for i in range(3) for place in where(layer_of(i), piece)]
        seen.add(found)
    assert {i for i, *_ in seen} == {0, 1, 2}
    assert {mirrored for *_, mirrored in seen} == {False, True}
    assert len(seen) > 50


def test_fractions_of_own_exchanged_and_modelled_rain(picture: Picture) -> None:
    (pair,) = additive_pairs(picture, 1)
    flat = LayerSource([np.full((24, 32), 9, np.uint8)])
    rain = Rain(exchange=0.3, modelled=0.2)
    kinds = {"own": 0, "exchanged": 0, "modelled": 0}
    for seed in range(600):
        rainy = exchange_rain(pair.rainy, pair.clean, [flat], rain, np.random.default_rng(seed))
        if rainy is pair.rainy:
            kinds["own"] += 1
        elif np.array_equal(rainy, rained(pair.clean, flat.images[0])):
            kinds["exchanged"] += 1
        else:
            kinds["modelled"] += 1
    assert kinds["own"] == pytest.approx(300, abs=40)
    assert kinds["exchanged"] == pytest.approx(180, abs=40)
    assert kinds["modelled"] == pytest.approx(120, abs=40)


def drawn(
    layer: Pixels, side: int, rain: Rain = Rain(exchange=1), rendered: bool = False
) -> list[np.ndarray]:
    """The rain of 300 black patches."""
    clean, source = np.zeros((side, side, 3), np.uint8), LayerSource([layer], rendered)
    return [
        exchange_rain(None, clean, [source], rain, np.random.default_rng(seed))[..., 0].astype(
            float
        )
        for seed in range(300)
    ]


def test_crops_of_sparse_rendered_layers_are_added() -> None:
    layer = np.full((8, 8), 10, np.uint8)
    layer[:4] = 0
    levels = {rain.max() for rain in drawn(layer, 8, rendered=True)}
    assert levels == {10.0 * count for count in range(1, MAX_CROPS + 1)}


def test_dense_rendered_layers_are_used_once() -> None:
    layer = np.full((8, 8), 10, np.uint8)
    layer[:3] = 0
    assert {rain.max() for rain in drawn(layer, 8, rendered=True)} == {10.0}


def test_enlarged_layers_are_smooth() -> None:
    steps = np.tile(np.repeat(np.array([0, 200], np.uint8), 4), (64, 8))  # upright, 4 pixels wide
    for rain in drawn(steps, 64, Rain(exchange=1, layer_size=(4, 4), layer_angle=40)):
        assert rain.min() >= 0
        assert rain.max() > 180
        across, down = np.diff(rain, axis=1), np.diff(rain, axis=0)
        assert np.abs(across).max() < 1.8 * 200 / 4  # not 200 at every fourth pixel
        assert np.abs(np.diff(across, axis=1)).max() < 40  # 50 with linear interpolation
        assert np.abs(down).max() < 1.8 * 200 / 4


def test_layers_vary_in_brightness() -> None:
    layer = np.full((40, 40), 100, np.uint8)
    levels = [rain.max() for rain in drawn(layer, 8, Rain(exchange=1, layer_gain=(0.5, 2)))]
    assert min(levels) == pytest.approx(50, abs=2)
    assert max(levels) == pytest.approx(200, abs=4)
    assert np.median(levels) == pytest.approx(100, abs=12)


def test_layers_vary_in_size_and_angle() -> None:
    wave = np.rint(50 + 50 * np.cos(2 * np.pi * np.arange(96) / 16))
    stripes = np.tile(wave.astype(np.uint8), (96, 1))  # upright, 16 pixels apart
    distances, angles = [], []
    for rain in drawn(stripes, 96, Rain(exchange=1, layer_size=(0.5, 2), layer_angle=15)):
        spectrum = np.abs(np.fft.rfft2(rain - rain.mean()))
        spectrum[:, :2] = 0
        v, u = np.unravel_index(spectrum[:, :20].argmax(), (96, 20))
        v = v - 96 if v > 48 else v
        distances.append(96 / np.hypot(u, v))
        angles.append(np.degrees(np.arctan2(v, u)))
    assert 7 < min(distances) < 9
    assert 25 < max(distances) < 36
    assert np.abs(angles).max() == pytest.approx(15, abs=4)
    assert np.mean(angles) == pytest.approx(0, abs=1.5)


def test_crops_of_one_patch_have_one_size() -> None:
    wave = np.rint(20 + 20 * np.cos(2 * np.pi * np.arange(96) / 12))
    stripes = np.tile(wave.astype(np.uint8), (96, 1))
    stripes[::2] = 0  # sparse, so that several crops are added up
    for rain in drawn(stripes, 96, Rain(exchange=1, layer_size=(0.5, 2)), rendered=True):
        profile = rain.mean(axis=0)
        spectrum = np.abs(np.fft.rfft((profile - profile.mean()) * np.hanning(96))) ** 2
        peak = int(spectrum.argmax())
        assert spectrum[max(0, peak - 2) : peak + 3].sum() > 0.8 * spectrum.sum()


def test_small_layers_are_repeated() -> None:
    layer = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    tiled = np.tile(layer, (3, 3))
    for rain in drawn(layer, 8):
        assert where(tiled, rain)


def test_clean_scenes_get_rain(picture: Picture) -> None:
    pairs = additive_pairs(picture, 2)
    scenes = [np.full((16, 16, 3), 7, np.uint8)]
    for sources, rain in (
        ([extract_layers(pairs)], Rain(exchange=0.1)),
        ([], Rain(modelled=0.1)),
    ):
        patches = Patches(pairs, 12, 0, clean_scenes=scenes, sources=sources, rain=rain)
        for round_ in range(10):
            three = [patches[3 * round_ + i] for i in range(3)]
            (one,) = [p for p in three if p.clean.unique().numel() == 1]
            assert (one.rainy >= one.clean).all()
            assert (one.rainy > one.clean).any()


def test_patches_with_exchange_and_camera_depend_on_seed_and_index(picture: Picture) -> None:
    pairs = additive_pairs(picture)
    sources, rain, camera = [extract_layers(pairs)], Rain(0.5, 0.2), Camera(1, 0.2, 4, 40)
    one, two, plain = (
        Patches(pairs, 12, 0, "flip", [picture(seed=9)], sources, rain, c)
        for c in (camera, camera, Camera())
    )
    backwards = {i: two[i] for i in reversed(range(20))}
    assert all(torch.equal(one[i].rainy, backwards[i].rainy) for i in range(20))
    assert any(not torch.equal(one[i].rainy, plain[i].rainy) for i in range(20))


def test_exchange_does_not_change_the_clean_patches(picture: Picture) -> None:
    pairs = additive_pairs(picture)
    before = Patches(pairs, 12, 0, "flip")
    sources = [extract_layers(pairs)]
    after = Patches(pairs, 12, 0, "flip", sources=sources, rain=Rain(exchange=1))
    assert all(torch.equal(before[i].clean, after[i].clean) for i in range(20))
    assert not any(torch.equal(before[i].rainy, after[i].rainy) for i in range(20))


def test_camera_degrades_both_images_alike(picture: Picture) -> None:
    clean = picture(24, 32)
    random = np.random.default_rng
    for camera in (Camera(1, 0.3, 5, 30), Camera(veil=0.5), Camera(jpeg=10), Camera(noise=9)):
        a, b = photograph(clean, clean, camera, random(3))
        assert np.array_equal(a, b)
        assert a.shape == clean.shape
        assert not np.array_equal(a, clean)
    for same in photograph(clean, clean, Camera(), random(3)):
        assert np.array_equal(same, clean)


def test_camera_strengths() -> None:
    grey = np.full((64, 64, 3), 100, np.uint8)
    camera, random = Camera(noise=8), np.random.default_rng(0)
    noises = [photograph(grey, grey, camera, random)[0].std() for _ in range(40)]
    assert max(noises) == pytest.approx(8, rel=0.2)
    assert min(noises) < 2
    scene = SyntheticPairs("test", 1, 64)[0].clean
    camera = Camera(jpeg=20)
    quality = [
        peak_signal_noise_ratio(scene, photograph(scene, scene, camera, random)[0])
        for _ in range(40)
    ]
    assert max(quality) > 40
    assert 25 < min(quality) < 33
    sharp = np.abs(np.diff(scene.astype(int), axis=0)).mean()
    for camera in (Camera(blur=2), Camera(veil=0.8)):
        soft, _ = photograph(scene, scene, camera, np.random.default_rng(1))
        assert np.abs(np.diff(soft.astype(int), axis=0)).mean() < 0.9 * sharp


def test_jpeg_keeps_the_channel_order() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    stored, _ = photograph(red, red, Camera(jpeg=90), np.random.default_rng(0))
    assert np.abs(stored.astype(int) - red).max() < 12


@pytest.fixture
def folders(tmp_path: Path, picture: Picture) -> Folders:
    """Pairs, clean images that include a validation and a test scene, and layers of both kinds."""
    pairs = additive_pairs(picture, 5)
    write_pairs(tmp_path / "train", pairs[:3])
    write_pairs(tmp_path / "test", pairs[3:])
    for i in (0, 3, 20, 21):
        write_image(tmp_path / "clean" / f"{i}.png", picture(seed=i))
    for i in range(2):
        write_image(tmp_path / "layers" / f"{i}.png", np.repeat(layer_of(i)[..., None], 3, axis=2))
    return Folders(
        "mine",
        tmp_path / "train",
        tmp_path / "test",
        clean=(tmp_path / "clean", tmp_path / "test"),
        layers=(tmp_path / "layers", tmp_path / "test"),
    )


def test_folders_of_clean_images_and_layers(folders: Folders, picture: Picture) -> None:
    layers = open_layers(folders.layers[0])
    assert layers.rendered
    assert np.array_equal(layers.images[1], layer_of(1))
    of_pairs = open_layers(folders.layers[1])
    assert not of_pairs.rendered
    assert np.array_equal(of_pairs.images, extract_layers(additive_pairs(picture, 5)[3:]).images)
    assert np.array_equal(open_clean(folders.clean[1])[0], picture(seed=3))
    write_image(folders.layers[0] / "scene.png", picture())
    with pytest.raises(UserError, match=r"scene.png"):
        open_layers(folders.layers[0])


def test_layers_with_alpha(folders: Folders) -> None:
    """White streaks whose brightness is in the alpha channel, or in both."""
    layer = layer_of(0)
    rgba = np.dstack([np.full((*layer.shape, 3), 255, np.uint8), layer])
    write_image(folders.layers[0] / "0.png", rgba)
    assert np.array_equal(open_layers(folders.layers[0]).images[0], layer)


def test_training_pairs_with_a_validation_scene_are_left_out(
    folders: Folders, picture: Picture
) -> None:
    assert folders.train_folder is not None
    rainy = np.minimum(picture(seed=0), 254) + 1  # another rain over the scene of rain-0
    write_image(folders.train_folder / "norain-7.png", picture(seed=0))
    write_image(folders.train_folder / "rain-7.png", rainy)
    recipe = Training(patch_size=16, validation=1)
    config = Config("mine", replace(folders, clean=(), layers=()), training=recipe)
    data = open_training(config)
    assert [pair.name for pair in data.validation] == ["rain-0"]
    assert [pair.name for pair in data.patches.pairs] == ["rain-1", "rain-2"]
    assert [pair.name for pair in data.patches.pairs[1:]] == ["rain-2"]
    assert data.left_out == 1


def test_scored_scenes_are_excluded_from_training(folders: Folders, picture: Picture) -> None:
    recipe, rain = Training(patch_size=16, validation=1), Rain(exchange=0.5)
    config = Config("mine", folders, rain, training=recipe)
    patches, validation, test, *_ = open_training(config)
    assert (len(patches.pairs), len(test)) == (2, 2)
    for image, seed in zip(patches.clean_scenes, (20, 21), strict=True):
        assert np.array_equal(image, picture(seed=seed))
    assert [source.rendered for source in patches.sources] == [False, True, False]
    # Each source loses one layer: that of the validation pair, and one per folder.
    assert [len(source.images) for source in patches.sources] == [2, 1, 1]
    assert [pair.name for pair in validation] == ["rain-0", "layers-rain-0", "test-rain-0"]
    assert np.array_equal(patches.sources[1].images[0], layer_of(1))
    scene, layer = picture(seed=0), rain_layer(additive_pairs(picture, 5)[3])
    assert layer is not None
    assert all(np.array_equal(pair.clean, scene) for pair in validation)
    assert rain_layer(validation[1]) is not None
    mirrored = layer[:, ::-1]
    assert any(np.array_equal(validation[2].rainy, rained(scene, x)) for x in (layer, mirrored))


def test_exchange_errors(folders: Folders) -> None:
    def refuse(message: str, rain: Rain, validation: int = 0) -> None:
        recipe = Training(patch_size=16, validation=validation)
        with pytest.raises(UserError, match=message):
            open_training(Config("mine", folders, rain, training=recipe))

    refuse("--clean .*--exchange or --modelled", Rain())
    refuse("--layers needs --exchange", Rain(modelled=0.5))
    refuse("--validation .* layers, 2, got 2", Rain(exchange=0.5), validation=2)
