"""Neighbouring frames: what they improve, and that they do not show where things were before.

Scenes, rain and what a network makes of it are generated. The network here leaves some of the rain
and takes a bright pole for rain.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

import show
from data.synthetic import RainModel, add_rain
from utils.image import Pixels
from utils.photo.neighbours import FRAMES, Frame, Neighbours
from utils.photo.outputs import numbered

HEIGHT, WIDTH = 160, 208
RAIN = RainModel((8, 8), (14, 20), (0.6, 0.8), (0.6, 0.8), (8, 8), (0, 0))


class Clip(NamedTuple):
    """Frames, uint8 [H, W, 3]."""

    rainy: list[Pixels]
    derained: list[Pixels]
    clean: list[Pixels]
    moving: list[NDArray[np.bool_]]
    """Where things are that move by themselves, [H, W] per frame."""


@cache
def photograph() -> NDArray[np.uint8]:
    """A photograph with a thin bright pole; the last channel shows where the pole is."""
    photograph = np.dstack([skimage.data.coffee(), np.zeros((400, 600), np.uint8)])
    pole = cv2.line(photograph, (270, 0), (262, 400), (235, 235, 225, 255), 3, cv2.LINE_AA)
    return np.asarray(pole, np.uint8)


def pan(i: int) -> NDArray[np.uint8]:
    """Frame i of a camera that turns and approaches slowly, [H, W, 4]."""
    matrix = cv2.getRotationMatrix2D((300, 200), 0.3 * i, 0.9 + 0.004 * i)
    matrix[:, 2] -= np.array([180 + 1.5 * i, 100 + 0.5 * i])
    size = (WIDTH, HEIGHT)
    image = cv2.warpAffine(photograph(), matrix, size, flags=cv2.INTER_CUBIC)
    return np.asarray(image, np.uint8)


def still(i: int) -> Pixels:
    return pan(0)


Line = tuple[float, float, float, float, int]  # from x, y to x, y, and width


def disc(i: int) -> list[Line]:
    x = 30 + 5 * i
    return [(x, 70, x, 70, 32)]


def person(i: int) -> list[Line]:
    """Head, body, arms and legs, walking."""
    x, swing = 170 - 3 * i, 14 * np.sin(0.4 * i)
    arms = [(x, 58, x + side * swing, 88, 6) for side in (-1, 1)]
    legs = [(x, 92, x + side * swing, 132, 8) for side in (-1, 1)]
    return [(x, 40, x, 40, 16), (x, 56, x, 92, 18), *arms, *legs]


def clip(
    count: int,
    camera: Callable[[int], NDArray[np.uint8]] = pan,
    things: Sequence[tuple[Callable[[int], list[Line]], tuple[int, int, int]]] = (),
) -> Clip:
    """Generate a clip, its rain, and what a network makes of it.

    Args:
        count: number of frames.
        camera: gives the scene, and where its pole is.
        things: that move in front of the scene, and their colours.
    """
    random = np.random.default_rng(0)
    clip = Clip([], [], [], [])
    for i in range(count):
        scene, pole = camera(i)[..., :3], camera(i)[..., 3:] / 255
        thing = np.zeros((HEIGHT, WIDTH), np.uint8)
        for lines, colour in things:
            layer = np.zeros((HEIGHT, WIDTH), np.uint8)
            for *ends, width in lines(i):
                x1, y1, x2, y2 = (round(16 * end) for end in ends)
                cv2.line(layer, (x1, y1), (x2, y2), 255, width, cv2.LINE_AA, shift=4)
            alpha = layer[..., None] / 255
            shade = np.linspace(1, 0.6, HEIGHT)[:, None, None] * np.array(colour)
            scene = np.rint(alpha * shade + (1 - alpha) * scene).astype(np.uint8)
            thing = np.maximum(thing, layer)
        rainy = add_rain(scene, RAIN, random)
        rain = random.uniform(0.4, 0.9) * (rainy.astype(float) - scene)
        derained = scene + rain - 60 * pole * (1 - thing[..., None] / 255)
        clip.clean.append(scene)
        clip.rainy.append(rainy)
        clip.derained.append(np.rint(derained.clip(0, 255)).astype(np.uint8))
        clip.moving.append(thing > 127)
    return clip


def merged(clip: Clip, count: int = FRAMES, scale: float = 1) -> list[Pixels]:
    neighbours, done = Neighbours(count, scale), []
    for i, (rainy, derained) in enumerate(zip(clip.rainy, clip.derained, strict=True)):
        done += neighbours.add(Frame(rainy, derained, i))
        assert i - len(done) < count  # frames that are held
    done += neighbours.finish()
    assert [frame.tag for frame in done] == list(range(len(clip.rainy)))
    assert all(np.array_equal(frame.rainy, clip.rainy[frame.tag]) for frame in done)
    return [frame.derained for frame in done]


def error(
    images: Sequence[Pixels], clean: Sequence[Pixels], where: Sequence[NDArray[np.bool_]]
) -> float:
    """Root of the mean squared error in an area of each frame."""
    pairs = zip(images, clean, where, strict=True)
    squares = [np.square(a.astype(float) - b)[area] for a, b, area in pairs]
    return float(np.sqrt(np.concatenate(squares).mean()))


EVERYWHERE = np.ones((HEIGHT, WIDTH), bool)
THINGS = ((disc, (210, 60, 50)), (person, (225, 220, 205)))


@pytest.mark.parametrize("camera", [still, pan])
def test_neighbours_tell_rain_from_scene(camera: Callable[[int], NDArray[np.uint8]]) -> None:
    """Rain that the network left goes, and the pole that it took for rain comes back."""
    c = clip(9, camera)
    result = merged(c)
    for single, several, clean in zip(c.derained, result, c.clean, strict=True):  # also at the ends
        assert error([several], [clean], [EVERYWHERE]) < 0.6 * error(
            [single], [clean], [EVERYWHERE]
        )
    poles = [camera(i)[..., 3] > 200 for i in range(9)]
    assert error(c.derained, c.clean, poles) > 40
    assert error(result, c.clean, poles) < 15
    rain = [
        np.abs(r.astype(int) - x).max(axis=2) > 30 for r, x in zip(c.rainy, c.clean, strict=True)
    ]
    assert error(result, c.clean, rain) < 0.6 * error(c.derained, c.clean, rain)


def test_things_that_move_by_themselves_are_no_worse() -> None:
    """A disc and a walking person; neither they nor the scene that they uncover show ghosts."""
    c = clip(9, pan, THINGS)
    result = merged(c)
    assert error(result, c.clean, c.moving) < error(c.derained, c.clean, c.moving)
    around = [cv2.dilate(m.astype(np.uint8), np.ones((21, 21))) > m for m in c.moving]
    assert error(result, c.clean, around) < error(c.derained, c.clean, around)


def test_frames_that_show_something_else_stay_as_they_are() -> None:
    """A cut that was missed, or a rate so low that nothing fits."""
    c = clip(4)
    other = [np.ascontiguousarray(image[::-1, ::-1]) for image in c.rainy]
    mixed = Clip(
        [c.rainy[0], other[1], c.rainy[2]], [c.derained[0], other[1], c.derained[2]], [], []
    )
    for single, several in zip(mixed.derained, merged(mixed, 3), strict=True):
        difference = np.abs(single.astype(int) - several).max(axis=2)
        assert np.mean(difference > 8) < 0.05


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_clips(count: int) -> None:
    c = clip(count)
    result = merged(c)
    everywhere = [EVERYWHERE] * count
    assert error(result, c.clean, everywhere) <= error(c.derained, c.clean, everywhere)
    assert (count == 1) == np.array_equal(result, c.derained)


def test_one_frame_is_the_derained_frame() -> None:
    c = clip(3)
    assert np.array_equal(merged(c, 1), c.derained)


@pytest.mark.parametrize("count", [2, 7])
def test_repeated_frames_are_no_neighbours(count: int) -> None:
    """As after a change of the rate; the encoder adds noise. A pause is not kept in memory."""
    c = clip(6)
    times = (1, 2, 3, 1, 20, 2)
    rows = [i for i, n in enumerate(times) for _ in range(n)]
    random = np.random.default_rng(0)
    noisy = [
        np.clip(c.rainy[i] + random.integers(-1, 2, c.rainy[i].shape), 0, 255).astype(np.uint8)
        for i in rows
    ]
    repeated = Clip(noisy, [c.derained[i] for i in rows], [], [])
    plain = merged(c, count)
    neighbours, done, held = Neighbours(count), [], 0
    for i, (rainy, derained) in enumerate(zip(noisy, repeated.derained, strict=True)):
        done += neighbours.add(Frame(rainy, derained, i))
        held = max(held, i + 1 - len(done))
    done += neighbours.finish()
    assert [frame.tag for frame in done] == list(range(len(rows)))
    assert held <= 2 * count + 6
    everywhere = [EVERYWHERE] * len(rows)
    clean = [c.clean[i] for i in rows]
    result = [frame.derained for frame in done]
    assert error(result, clean, everywhere) < 1.3 * error(
        [plain[i] for i in rows], clean, everywhere
    )
    for a, b, same in zip(result, result[1:], np.diff(rows) == 0, strict=False):
        assert np.array_equal(a, b) == same


def test_frames_without_rain_are_not_touched() -> None:
    c = clip(5, pan, THINGS)
    dry = c._replace(rainy=c.clean, derained=c.clean)
    assert np.array_equal(merged(dry), c.clean)


def test_bit_depth_and_alpha() -> None:
    c = clip(3)
    alpha = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1).astype(np.uint16)
    deep = [[np.dstack([257 * im.astype(np.uint16), alpha]) for im in part] for part in c[:2]]
    for shallow, result in zip(merged(c), merged(Clip(deep[0], deep[1], [], [])), strict=True):
        assert result.dtype == np.uint16
        assert np.array_equal(result[..., 3:], alpha)
        assert np.abs(result[..., :3] / 257 - shallow).max() < 3


@pytest.mark.parametrize("scale", [1, 2.5])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (31, 31), (32, 32), (33, 47), (95, 33)])
def test_every_size(size: tuple[int, int], scale: float) -> None:
    random = np.random.default_rng(0)
    h, w = size
    rainy = [random.integers(0, 256, (h, w, 3), np.uint8) for _ in range(3)]
    c = Clip(rainy, [image // 2 for image in rainy], [], [])
    assert [image.shape for image in merged(c, 3, scale)] == [(h, w, 3)] * 3


class Dimmer:
    """Stands for a `Derainer` whose rain is half of the light."""

    def __init__(self) -> None:
        self.scaled: list[int] = []

    def choose_scale(self, rainy: Pixels) -> float:
        self.scaled.append(int(rainy[0, 0, 0]))
        return 1.0

    def __call__(self, rainy: Pixels, scale: float) -> Pixels:
        return rainy // 2


def test_shots_do_not_mix() -> None:
    """Each shot comes out as if it were alone; one scale is chosen for each."""
    first = clip(5).rainy
    second = [np.ascontiguousarray(255 - image[::-1]) for image in first[:3]]
    third = [np.ascontiguousarray(image[:100]) for image in first[:2]]  # of another size
    together, derain = [], Dimmer()
    film = show.Film(derain, "clip", 5)  # type: ignore[arg-type]
    for tag, rainy in enumerate([*first, *second, *third]):
        together += film.add(rainy, tag)
    together += film.finish()
    assert [frame.tag for frame in together] == list(range(10))
    assert derain.scaled == [int(shot[0][0, 0, 0]) for shot in (first, second, third)]
    alone = [
        image
        for shot in (first, second, third)
        for image in merged(Clip(shot, [rainy // 2 for rainy in shot], [], []), 5)
    ]
    for frame, image in zip(together, alone, strict=True):
        assert np.array_equal(frame.derained, image)
    assert not np.array_equal(together[2].derained, first[2] // 2)


def test_numbered_images_are_frames() -> None:
    names = [
        "a10.png",
        "a9.png",
        "a.png",
        "b01.png",
        "b1.jpg",
        "clip7.mp4",
        "clip8.mp4",
        "x/a8.png",
    ]
    groups = numbered(Path(name) for name in names)
    assert [[path.as_posix() for path in group] for group in groups] == [
        ["a9.png", "a10.png"],
        *([name] for name in names[2:]),
    ]
