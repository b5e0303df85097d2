"""Properties that hold for any image, folder, config and checkpoint."""

import contextlib
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from config.cli import train_config
from config.schema import Camera, Rain, Training, as_dict
from data.layouts import find_pairs
from data.pairs import Pair
from data.rain_layers import exchange_rain, extract_layers, rain_layer
from training.schedule import learning_rate, total_steps
from utils import checkpoint
from utils.errors import UserError
from utils.image import Pixels, read_image, to_pixels, to_tensor, write_image

quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))

sides = st.integers(1, 9)
dtypes = st.sampled_from([np.uint8, np.uint16])


@st.composite
def images(draw: st.DrawFn, channels: int = 3, dtype: Any = np.uint8) -> Pixels:
    return draw(arrays.arrays(dtype, (draw(sides), draw(sides), channels)))


@quick
@given(st.data(), dtypes, st.sampled_from([3, 4]))
def test_any_image_survives_writing_and_reading(data: Any, dtype: Any, channels: int) -> None:
    pixels = data.draw(images(channels, dtype))
    with tempfile.TemporaryDirectory() as folder:
        write_image(Path(folder) / "image.png", pixels)
        again = read_image(Path(folder) / "image.png")
    assert again.dtype == pixels.dtype
    assert np.array_equal(again, pixels)


@quick
@given(st.data(), dtypes)
def test_any_image_survives_the_conversion_to_a_tensor(data: Any, dtype: Any) -> None:
    pixels = data.draw(images(dtype=dtype))
    tensor = to_tensor(pixels)
    assert tensor.min() >= 0
    assert tensor.max() <= 1
    assert np.array_equal(to_pixels(tensor, dtype), pixels)


@quick
@given(st.data())
def test_any_rain_layer_can_be_exchanged(data: Any) -> None:
    """The layer found in a pair gives back its rainy image."""
    clean = data.draw(images())
    added = data.draw(arrays.arrays(np.uint8, clean.shape[:2]))
    rainy = np.minimum(255, clean.astype(int) + added[..., None]).astype(np.uint8)
    layer = rain_layer(Pair("any", rainy, clean))
    assert layer is not None
    assert (layer <= added).all()
    source = extract_layers([Pair("any", rainy, clean)])
    again = exchange_rain(rainy, clean, [source], Rain(exchange=1), np.random.default_rng(0))
    assert np.array_equal(again, rainy) or np.array_equal(again, _mirrored(clean, layer))


def _mirrored(clean: Pixels, layer: Pixels) -> Pixels:
    total = clean.astype(int) + layer[:, ::-1, None]
    return np.asarray(np.minimum(255, total), np.uint8)


@quick
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6, unique=True), st.randoms())
def test_pairs_are_found_by_name_in_any_order(numbers: list[int], random: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = [f"{kind}-{number}.png" for number in numbers for kind in ("rain", "norain")]
        for file in random.sample(names, len(names)):
            (folder / file).touch()
        found = find_pairs(folder, "rain100")
        assert [pair.rainy.name for pair in found] == [f"rain-{n}.png" for n in sorted(numbers)]
        assert [pair.clean.name for pair in found] == [f"norain-{n}.png" for n in sorted(numbers)]
        (folder / random.choice(names)).unlink()
        with pytest.raises(UserError, match=r"without a partner|official Rain100|no folder"):
            find_pairs(folder, "rain100")


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "batch_size": st.integers(1, 64),
    "accumulate": st.integers(1, 8),
    "l1_weight": st.floats(0, 10),
    "steps": st.none() | st.integers(1, 10**6),
    "lr": st.floats(1e-8, 1),
    "warmup": st.integers(0, 1000),
    "cooldown": st.floats(0, 1),
    "schedule": st.sampled_from(["multistep", "cosine", "trapezoid"]),
    "milestones": st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).map(tuple),
    "clip": st.none() | st.floats(1e-3, 10),
    "seed": st.integers(0, 2**31),
}
RAIN_AND_CAMERA: dict[str, st.SearchStrategy[Any]] = {
    "exchange": st.floats(0, 0.5),
    "layer_size": st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted).map(tuple),
    "layer_angle": st.floats(0, 180),
    "structures": st.floats(0, 1),
    "drops": st.floats(0, 0.5),
    "dry": st.floats(0, 0.5),
    "jpeg": st.integers(0, 100),
}
recipes = st.fixed_dictionaries({}, optional=VALUES)


@quick
@given(st.fixed_dictionaries({}, optional=VALUES | RAIN_AND_CAMERA))
def test_any_recipe_can_be_given_as_flags(values: dict[str, Any]) -> None:
    flags = [part for key, value in values.items() for part in _flag(key, value)]
    config = train_config(flags)
    found: dict[str, Any] = {}
    for section in (config.training, config.rain, config.camera):
        found |= vars(section)
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value
                 for key, value in as_dict(section).items()}  # fmt: skip
        assert type(section)(**plain) == section
    assert {key: found[key] for key in values} == values


def _flag(key: str, value: Any) -> list[str]:
    parts = value if isinstance(value, tuple) else [value]
    return ["--" + key.replace("_", "-"), *map(str, parts)]


@quick
@given(recipes, st.integers(1, 2000), st.floats(0, 1))
def test_the_learning_rate_of_any_recipe_is_positive_and_bounded(
    values: dict[str, Any], scenes: int, position: float
) -> None:
    recipe = Training(**values)
    steps = total_steps(recipe, scenes)
    step = min(int(position * steps), steps - 1)
    assert 0 <= learning_rate(recipe, step, steps, scenes) <= recipe.lr * (1 + 1e-9)


@quick
@given(
    st.sampled_from(
        [
            (section, f.name)
            for section in (Training, Rain, Camera)
            for f in fields(section)
            if f.type in (int, float)
        ]
    ),
    st.floats(max_value=-1e-9) | st.just(float("inf")),
)
def test_no_number_of_a_recipe_may_be_negative_or_infinite(
    field: tuple[type[Training | Rain | Camera], str], value: float
) -> None:
    section, name = field
    assume(name != "seed" or value < 0)
    with pytest.raises(UserError, match="--" + name.replace("_", "-")):
        section(**{name: value})  # type: ignore[arg-type]


scalars = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=9)
tensors = arrays.arrays(
    st.sampled_from([np.float32, np.int64, np.uint8]), arrays.array_shapes(max_dims=3, max_side=4)
).map(lambda array: torch.from_numpy(np.nan_to_num(array)))
payloads = st.dictionaries(
    st.text(max_size=9),
    st.recursive(scalars | tensors, lambda inner: st.dictionaries(st.text(max_size=9), inner)),
    max_size=5,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


@quick
@given(payloads, st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@pytest.mark.slow
def test_any_checkpoint_is_read_back_or_refused(
    payload: dict[str, Any], position: float, change: int
) -> None:
    """A changed byte is an error or has no effect."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        checkpoint.save(path, payload)
        assert same(checkpoint.load(path), payload)
        content = bytearray(path.read_bytes())
        content[int(position * len(content))] ^= change
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            assert same(checkpoint.load(path), payload)
