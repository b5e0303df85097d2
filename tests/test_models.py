"""JDNet against outputs of the released code, and its modules against formulas written out."""

import gc
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import assert_gradients_match, assert_matches, filled, fixture_input, load_fixture
from torch import Tensor, nn

from config.networks import JDNetConfig
from models import JDNet, Network, PReNet
from models.jdnet.dense_connection import DenseFeatures
from models.jdnet.equations import PlainJDNet
from models.jdnet.pointwise import pointwise
from models.jdnet.scale_aggregation import ScaleAggregation
from models.jdnet.self_attention import SelfAttention, image_coordinates, patch_coordinates
from models.jdnet.self_calibration import SelfCalibratedConv
from models.load import grow

FIXTURE = load_fixture("jdnet.json")
PRECISIONS = [
    pytest.param(torch.float64, 1e-9, id="f64", marks=pytest.mark.slow),
    pytest.param(torch.float32, 1e-4, id="f32"),
]
ABLATIONS: dict[str, dict[str, Any]] = {
    "jdnet": {},
    "jdnet_r1": {"self_attention": False, "self_calibration": False},
    "jdnet_r2": {"self_attention": False},
}


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", ABLATIONS)
def test_outputs_and_gradients_of_the_released_code(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    network, expected = filled(JDNet(JDNetConfig(**ABLATIONS[name])), dtype), FIXTURE[name]
    assert sum(p.numel() for p in network.parameters()) == expected["params"]
    assert len(network.state_dict()) == expected["state_tensors"]
    with torch.no_grad():
        odd = network(fixture_input("1x3x37x53", dtype))
    assert_matches(odd, expected["eval"]["1x3x37x53"]["clean"], tolerance)
    output = network(fixture_input("1x3x64x64", dtype))
    assert_matches(output, expected["eval"]["1x3x64x64"]["clean"], tolerance)
    assert_gradients_match(network, output.square().mean(), expected["grad"], tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_training_mode_of_the_released_code(dtype: torch.dtype, tolerance: float) -> None:
    network = filled(JDNet(), dtype).train()
    with torch.no_grad():
        output = network(fixture_input("2x3x64x64", dtype, seed=2))
    assert_matches(output, FIXTURE["jdnet"]["train_mode_2x3x64x64_seed2"]["clean"], tolerance)


def test_parameters_of_the_paper() -> None:
    assert sum(p.numel() for p in JDNet().parameters()) == 4_681_859


def test_state_dict_keys_are_frozen() -> None:
    """Renaming a key breaks all existing checkpoints."""
    conv = ("weight", "bias")
    norm = (*conv, "running_mean", "running_var", "num_batches_tracked")
    attention = {
        "norm_in": norm,
        "phi": conv,
        "psi": conv,
        "beta": conv,
        "position": conv,
        "gamma1": ("weight",),
        "gamma2": conv,
        "norm_out": norm,
        "expand": conv,
    }
    expected = {
        f"units.0.attention.{m}.{leaf}" for m, leaves in attention.items() for leaf in leaves
    }
    modules = ["head", "tail", "dense.0", "units.0.aggregation.fuse"]
    modules += [f"units.0.aggregation.down.{j}" for j in range(4)]
    modules += [f"units.0.aggregation.blocks.{j}.{k}" for j in range(4) for k in (0, 2)]
    modules += [f"units.0.calibration.{m}" for m in ("split1", "split2", "k1", "k2", "k3", "k4")]
    modules += ["units.0.calibration.merge"]
    expected |= {f"{module}.{leaf}" for module in modules for leaf in conv}
    assert set(JDNet(JDNetConfig(units=1)).state_dict()) == expected


def test_parameters_without_gradient() -> None:
    """Differences, softmax and batch normalization cancel additive constants."""
    torch.manual_seed(0)
    network = JDNet(JDNetConfig(units=2)).double()
    network(torch.rand(2, 3, 16, 16, dtype=torch.float64)).square().mean().backward()
    still = {
        key.split("attention.")[-1]
        for key, p in network.named_parameters()
        if p.grad is None or p.grad.abs().max() < 1e-12
    }
    assert still == {"gamma2.bias", "position.bias", "beta.bias"}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_any_size(h: int, w: int) -> None:
    torch.manual_seed(0)
    network = JDNet(JDNetConfig(units=1, channels=16)).eval()
    image = torch.rand(1, 3, h, w)
    with torch.inference_mode():
        derained = network(image)
    assert derained.shape == image.shape
    assert derained.isfinite().all()


def test_position_keeps_float32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, neighbouring columns of a large image would have the same coordinate."""
    torch.manual_seed(0)
    module = SelfAttention(16).eval()
    seen: list[Tensor] = []

    def attention(features: Tensor, position: Tensor, *_: object) -> Tensor:
        seen.append(position)
        return features[:, 2:]

    monkeypatch.setattr("models.jdnet.self_attention.pairwise_attention", attention)
    x = torch.rand(1, 16, 4, 300)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled):
            module(x, image_coordinates(x, (0, 0, 4, 300)))
    assert torch.equal(*seen)


def test_a_grown_network_has_the_same_output_and_learns() -> None:
    torch.manual_seed(0)
    small, large = (JDNet(JDNetConfig(units=units, channels=16)).eval() for units in (2, 12))
    large.load_state_dict(grow(large, small.state_dict()))
    rainy = torch.rand(1, 3, 16, 20)
    torch.testing.assert_close(large(rainy), small(rainy))
    large(rainy).square().mean().backward()
    new_features = large.dense[-1].get_parameter("weight").grad
    assert new_features is not None
    assert new_features[:, 3 * 16 :].abs().amax(dim=0).min() > 0
    for state in (large.state_dict(), {"dense.weight": rainy}, {}):
        assert grow(large, state) == state
    lacking = JDNet(JDNetConfig(units=2, channels=16, self_attention=False))
    assert large.state_dict().keys() - grow(large, lacking.state_dict()).keys() == {
        key for key in small.state_dict() if ".attention." in key
    }


def test_filters_are_channels_last_where_the_features_are() -> None:
    def is_channels_last(network: Network, device: str) -> bool:
        filters = [p for p in network.place(device).parameters() if p.shape[2:] == (3, 3)]
        return all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)

    assert is_channels_last(JDNet(JDNetConfig(units=1)), "meta")
    assert not is_channels_last(JDNet(JDNetConfig(units=1)), "cpu")
    assert not is_channels_last(PReNet(), "meta")


def test_channels_last_filters_change_no_value() -> None:
    torch.manual_seed(0)
    plain, other = (JDNet(JDNetConfig(units=1, channels=16)).eval() for _ in range(2))
    other.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other.load_state_dict(plain.state_dict())
    weight = other.head.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, plain.head.weight)
    rainy = torch.rand(1, 3, 20, 16)
    torch.testing.assert_close(other(rainy), plain(rainy))


@pytest.mark.slow
def test_overfits_one_patch() -> None:
    torch.manual_seed(0)
    network = JDNet(JDNetConfig(units=1, channels=16))
    clean = torch.rand(2, 3, 16, 16)
    rainy = (clean + 0.4 * (torch.rand(2, 1, 16, 16) > 0.8)).clamp(0, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.mse_loss(network(rainy), clean)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * F.mse_loss(rainy, clean).item()


# --- modules -----------------------------------------------------------------------------------


def test_scale_aggregation_is_the_concatenation_of_the_paper() -> None:
    torch.manual_seed(0)
    module = ScaleAggregation(16, 3).double()
    x = torch.rand(2, 16, 13, 10, dtype=torch.float64)
    pyramid, scale = [x], x
    for down, block in zip(module.down, module.blocks, strict=True):
        scale = F.leaky_relu(down(scale), 0.2)
        scale = block(scale) + scale
        pyramid.append(F.interpolate(scale, x.shape[2:], mode="nearest"))
    expected = F.leaky_relu(module.fuse(torch.cat(pyramid, dim=1)), 0.2) + x
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "outputs", "gradients"),
    [(torch.float64, 1e-12, 1e-10), (torch.float32, 1e-5, 1e-4)],
    ids=["f64", "f32"],
)
@pytest.mark.parametrize("size", [(32, 32), (21, 37)])
@pytest.mark.parametrize("name", ABLATIONS)
def test_jdnet_is_its_equations(
    name: str, size: tuple[int, int], dtype: torch.dtype, outputs: float, gradients: float
) -> None:
    """No optimization changes the outputs or gradients; float32 also covers the compiled code."""
    results = []
    for network in (
        PlainJDNet(JDNetConfig(units=10, **ABLATIONS[name])),
        JDNet(JDNetConfig(units=10, **ABLATIONS[name])),
    ):
        torch.manual_seed(0)
        for p in network.parameters():
            torch.nn.init.normal_(p, std=1 / max(1, p[0].numel()) ** 0.5)
        network.to(dtype).train()
        rainy = torch.rand(2, 3, *size, dtype=torch.float64).to(dtype)
        derained = network(rainy)
        (derained - rainy).square().mean().backward()
        # gamma2.bias has no gradient in JDNet, and a gradient of zero in PlainJDNet.
        grads = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
                for p in network.parameters()
            ]
        )
        results.append((derained.detach(), grads))
    (plain, plain_grads), (derained, grads) = results
    assert (derained - plain).abs().max() < outputs * plain.abs().max()
    assert (grads - plain_grads).norm() < gradients * plain_grads.norm()


@pytest.mark.parametrize("frozen", [(), (0,), (1, 2)], ids=["none", "input", "layer"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_pointwise_is_a_1x1_convolution(has_bias: bool, frozen: tuple[int, ...]) -> None:
    """Also where tests run, on one thread with few images, for which it has code of its own."""
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8, 6).contiguous(memory_format=torch.channels_last)
    inputs = [x, torch.randn(4, 5, 1, 1), *([torch.randn(4)] if has_bias else [])]
    grad, results = torch.randn(3, 4, 8, 6), []
    runs: list[tuple[Callable[..., Tensor], torch.dtype]] = [
        (F.conv2d, torch.float64),
        (pointwise, torch.float32),
    ]
    for run, dtype in runs:
        leaves = [value.to(dtype).requires_grad_(i not in frozen) for i, value in enumerate(inputs)]
        out = run(*leaves)
        out.backward(grad.to(dtype))
        results.append([out.detach(), *(leaf.grad for leaf in leaves if leaf.requires_grad)])
    assert len(results[0]) == len(results[1])
    for exact, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-4)


def test_gradients_of_the_dense_chain_twice() -> None:
    """The backward can run again through a retained graph, and through a part of it."""
    torch.manual_seed(0)
    inputs = [torch.rand(1, 16, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(12)]
    layers = [nn.Conv2d((i + 2) * 16, 16, 1).double() for i in range(11)]

    def chain(plain: bool) -> list[Tensor]:
        features = DenseFeatures(inputs[0], 12)
        fusions = []
        for i, (x, layer) in enumerate(zip(inputs[1:], layers, strict=True)):
            features.append(x)
            together = torch.cat(inputs[: i + 2], dim=1)
            fusions.append(layer(together) if plain else features.fuse(layer))
        return fusions

    ours, exact = chain(plain=False), chain(plain=True)
    for wanted in ([10], [3, 9], [0], list(range(11)), [3], [3, 9]):
        leaves = [*inputs[: max(wanted) + 2], layers[wanted[0]].weight]
        got, expected = (
            torch.autograd.grad(
                torch.stack([fusions[i] for i in wanted]).square().sum(), leaves, retain_graph=True
            )
            for fusions in (ours, exact)
        )
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_the_dense_chain_is_freed() -> None:
    """A reference cycle between graph nodes and buffers would keep them alive after every step."""

    def chains() -> int:
        return sum(type(o).__name__ == "_Chain" for o in gc.get_objects())

    network, before = JDNet(JDNetConfig(units=2, channels=16)), chains()
    derained = network(torch.rand(1, 3, 16, 16))
    assert chains() == before + 1
    derained.sum().backward()
    del derained
    assert chains() == before


def test_self_calibration_longhand() -> None:
    torch.manual_seed(0)
    m = SelfCalibratedConv(16, 4).double()
    x = torch.rand(1, 16, 9, 8, dtype=torch.float64)

    def conv(layer: nn.Conv2d, t: Tensor) -> Tensor:
        return F.conv2d(t, layer.weight, layer.bias, padding=layer.padding[0])

    x1, x2 = (F.leaky_relu(conv(layer, x), 0.2) for layer in (m.split1, m.split2))
    pooled = x1[:, :, :8, :8].reshape(1, 8, 2, 4, 2, 4).mean(dim=(3, 5))
    small = conv(m.k2, pooled)
    rows = torch.arange(9) * 2 // 9
    up = small[:, :, rows][:, :, :, torch.arange(8) // 4]
    y1 = F.leaky_relu(conv(m.k4, conv(m.k3, x1) * torch.sigmoid(x1 + up)), 0.2)
    y2 = F.leaky_relu(conv(m.k1, x2), 0.2)
    expected = F.leaky_relu(conv(m.merge, torch.cat([y2, y1], 1)) + x, 0.2)
    torch.testing.assert_close(m(x), expected, rtol=1e-12, atol=1e-12)


def test_coordinates_of_a_window_are_those_of_the_whole() -> None:
    whole = image_coordinates(torch.zeros(1, 3, 5, 7), (0, 0, 5, 7))
    assert whole.shape == (1, 2, 5, 7)
    assert whole[0, 0, 0].tolist() == pytest.approx(np.linspace(-1, 1, 7).tolist(), abs=1e-6)
    assert whole[0, 1, :, 0].tolist() == pytest.approx([-1, -0.5, 0, 0.5, 1])
    window = image_coordinates(torch.zeros(1, 3, 2, 3), (1, 2, 5, 7))
    assert torch.equal(window, whole[:, :, 1:3, 2:5])


def test_patch_coordinates_are_those_of_a_training_patch_everywhere() -> None:
    patch = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(patch_coordinates(patch), image_coordinates(patch, (0, 0, 64, 64)))
    large = patch_coordinates(torch.zeros(1, 3, 200, 300, dtype=torch.float64))
    for dim in (2, 3):
        step = large.diff(dim=dim)[:, 3 - dim].unique()
        assert step.tolist() == pytest.approx([2 / 63] * len(step))


@pytest.mark.parametrize(("position", "tolerance"), [("patch", 1e-9), ("image", 1.0)])
def test_patch_position_makes_a_tile_see_what_the_whole_sees(
    position: Literal["image", "patch"], tolerance: float
) -> None:
    """With one attention unit and no coarser scales, the inside of a tile equals the full image."""
    torch.manual_seed(0)
    network = (
        JDNet(JDNetConfig(1, 16, scales=0, self_calibration=False, position=position))
        .double()
        .eval()
    )
    image = torch.rand(1, 3, 40, 60, dtype=torch.float64)
    whole, tile = network(image), network(image[:, :, 10:30, 10:30])
    error = (whole[:, :, 10:30, 10:30] - tile)[:, :, 6:-6, 6:-6].abs().max().item()
    assert error < tolerance
    if position == "image":
        assert error > 1e-6
