"""DCSFN, DANet, the PReNet family and RESCAN against outputs of their released code."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import (
    assert_gradients_match,
    assert_matches,
    filled,
    fixture_input,
    load_fixture,
    released_names,
)
from torch import Tensor, nn

from config.networks import DANetConfig, DCSFNConfig, PReNetConfig, RESCANConfig
from models.siblings.blocks import ConvLSTM, ConvRNN, Gate, SqueezeExcitation
from models.siblings.danet import DANet, shuffle
from models.siblings.dcsfn import DCSFN
from models.siblings.prenet import PReNet
from models.siblings.rescan import RESCAN
from tools.released_keys import released_key

Sibling = DCSFN | DANet | PReNet | RESCAN

FIXTURE = load_fixture("siblings.json")  # outputs in the order of stages()
PRECISIONS = [
    pytest.param(torch.float64, 1e-9, id="f64", marks=pytest.mark.slow),
    pytest.param(torch.float32, 1e-4, id="f32"),
]
RELEASED: dict[str, Callable[[], Sibling]] = {
    "dcsfn": DCSFN,
    "danet": DANet,
    "PReNet": PReNet,
    "PReNet_r": lambda: PReNet(PReNetConfig(shared_blocks=True)),
    "PRN": lambda: PReNet(PReNetConfig(recurrence="none")),
    "PRN_r": lambda: PReNet(PReNetConfig(recurrence="none", shared_blocks=True)),
    "PReNet_GRU": lambda: PReNet(PReNetConfig(recurrence="gru", global_residual=False)),
    "PReNet_LSTM": lambda: PReNet(PReNetConfig(global_residual=False)),
    "PReNet_x": lambda: PReNet(PReNetConfig(rainy_input=False, global_residual=False)),
    "rescan": RESCAN,
}
SMALL: dict[str, Callable[[], Sibling]] = {
    "dcsfn": lambda: DCSFN(DCSFNConfig(units=1, channels=4)),
    "dcsfn-rnn": lambda: DCSFN(DCSFNConfig(units=1, channels=4, cell="rnn")),
    # Without biases, all ReLUs of a narrow bottleneck may be dead at initialization.
    "danet": lambda: DANet(DANetConfig(channels=16, blocks=1, reduction=1)),
    "prenet": lambda: PReNet(PReNetConfig(stages=2, channels=4)),
    "prenet-gru": lambda: PReNet(PReNetConfig(stages=2, channels=4, recurrence="gru")),
    "prenet-real": lambda: PReNet(
        PReNetConfig(stages=2, channels=4, recurrence_last=True, global_residual=False)
    ),
    "prn_r": lambda: PReNet(
        PReNetConfig(stages=2, channels=4, recurrence="none", shared_blocks=True)
    ),
    "rescan-conv": lambda: RESCAN(RESCANConfig(stages=2, channels=4, cell="conv")),
    "rescan-rnn": lambda: RESCAN(RESCANConfig(stages=2, channels=4, cell="rnn")),
    "rescan-gru-add": lambda: RESCAN(RESCANConfig(stages=2, channels=4, frame="add")),
    "rescan-lstm": lambda: RESCAN(RESCANConfig(stages=2, channels=4, cell="lstm")),
}


def released_outputs(network: Sibling, rainy: Tensor) -> list[Tensor]:
    """The outputs of the released network, in the order of our stages."""
    stages = network.stages(rainy)
    return [rainy - stage if isinstance(network, RESCAN) else stage for stage in stages]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", RELEASED)
def test_outputs_and_gradients_of_the_released_code(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    network, expected = filled(RELEASED[name](), dtype), FIXTURE[name]
    names = released_names(network)
    assert sum(p.numel() for p in network.parameters()) == expected["params"]
    assert len(set(names.values())) == len(names) == expected["state_tensors"]
    for shape, fixtures in expected["eval"].items():
        with torch.no_grad():
            outputs = released_outputs(network, fixture_input(shape, dtype))
        for output, fixture in zip(outputs, fixtures.values(), strict=True):
            assert_matches(output, fixture, tolerance)

    outputs = released_outputs(network, fixture_input("1x3x64x64", dtype))
    loss = torch.stack([output.square().mean() for output in outputs]).sum()
    assert_gradients_match(network, loss, expected["grad"], tolerance)
    without = {names[key] for key, p in network.named_parameters() if p.grad is None}
    assert without == set(expected["grad"]["none_grad_params"])


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (DCSFN, 6_453_147),
        (lambda: DCSFN(DCSFNConfig(cell="rnn")), 6_366_267),  # 6.37M in a published comparison
        (DANet, 2_943_138),
        (PReNet, 168_963),
        (lambda: PReNet(PReNetConfig(shared_blocks=True)), 94_979),
        (lambda: PReNet(PReNetConfig(recurrence="none")), 95_107),
        (lambda: PReNet(PReNetConfig(recurrence="none", shared_blocks=True)), 21_123),
        (lambda: PReNet(PReNetConfig(recurrence="gru")), 150_499),
        (lambda: RESCAN(RESCANConfig(cell="conv")), 28_695),
        (lambda: RESCAN(RESCANConfig(cell="rnn")), 54_735),
        (lambda: RESCAN(RESCANConfig(cell="gru")), 149_823),
        (lambda: RESCAN(RESCANConfig(cell="lstm")), 197_367),
    ],
)
def test_parameters_of_the_released_code(build: Callable[[], Sibling], parameters: int) -> None:
    network = build()
    assert sum(p.numel() for p in network.parameters()) == parameters
    names = released_names(network)
    assert len(set(names.values())) == len(names)


def test_unknown_key() -> None:
    with pytest.raises(KeyError, match=r"blocks\.5\.0\.weight"):
        released_key("prenet", "blocks.5.0.weight")


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=8, deadline=None)
@given(h=st.integers(1, 40), w=st.integers(1, 40))
def test_any_size(name: str, h: int, w: int) -> None:
    torch.manual_seed(0)
    network = SMALL[name]().eval()
    image = torch.rand(1, 3, h, w)
    with torch.inference_mode():
        *others, last = network.stages(image)
        derained = network(image)
    assert derained.shape == image.shape
    assert derained.isfinite().all()
    assert torch.equal(derained, last)
    for stage in others:
        size = ((h + 1) // 2, (w + 1) // 2) if isinstance(network, DANet) else (h, w)
        assert stage.shape == (1, 3, *size)


@pytest.mark.parametrize("name", SMALL)
def test_parameters_without_gradient(name: str) -> None:
    torch.manual_seed(0)
    network = SMALL[name]().double()
    stages = network.stages(torch.rand(2, 3, 32, 48, dtype=torch.float64))
    torch.stack([stage.square().mean() for stage in stages]).sum().backward()
    still = {
        key.rsplit(".", 1)[0]
        for key, p in network.named_parameters()
        if p.grad is None or p.grad.abs().max() < 1e-12
    }
    expected = set()
    if isinstance(network, DCSFN):
        first_calls = ("coarse_to_fine.2", "fine_to_coarse.0")  # called without a state
        gates = {"dcsfn": ("reset", "update", "candidate"), "dcsfn-rnn": ("mix",)}[name]
        expected = {f"{cell}.{gate}.from_state" for cell in first_calls for gate in gates}
        expected |= {f"{cell}.reset.from_input" for cell in first_calls if "reset" in gates}
        expected |= {"unused_fine.0", "unused_coarse.0"}
    assert still == expected


# --- not covered by fixtures -------------------------------------------------------------------


def of_input(gate: Gate, x: Tensor) -> Tensor:
    return F.conv2d(x, gate.from_input.weight, gate.from_input.bias, padding=2, dilation=2)


def of_state(gate: Gate, h: Tensor) -> Tensor:
    return F.conv2d(h, gate.from_state.weight, gate.from_state.bias, padding=1)


def test_rnn_longhand() -> None:
    torch.manual_seed(0)
    cell = ConvRNN(3, 4, 2, nn.LeakyReLU(0.2))
    x = torch.randn(2, 3, 5, 6)
    (first,) = cell(x)
    torch.testing.assert_close(first, F.leaky_relu(of_input(cell.mix, x).tanh(), 0.2))
    (second,) = cell(x, (first,))
    mixed = of_input(cell.mix, x) + of_state(cell.mix, first)
    torch.testing.assert_close(second, F.leaky_relu(mixed.tanh(), 0.2))


def test_lstm_longhand() -> None:
    torch.manual_seed(0)
    m = ConvLSTM(3, 4, 2, nn.LeakyReLU(0.2))
    x = torch.randn(2, 3, 5, 6)
    h, c = m(x)
    expected = of_input(m.input, x).sigmoid() * of_input(m.cell, x).tanh()
    torch.testing.assert_close(c, expected)
    torch.testing.assert_close(h, F.leaky_relu(of_input(m.output, x).sigmoid() * c, 0.2))
    next_h, next_c = m(x, (h, c))
    i, f, j, o = (of_input(g, x) + of_state(g, h) for g in (m.input, m.forget, m.cell, m.output))
    torch.testing.assert_close(next_c, f.sigmoid() * c + i.sigmoid() * j.tanh())
    torch.testing.assert_close(next_h, F.leaky_relu(o.sigmoid() * next_c.tanh(), 0.2))


def test_squeeze_excitation_longhand() -> None:
    torch.manual_seed(0)
    m = SqueezeExcitation(4, 3)
    x = torch.randn(2, 4, 5, 6)
    for image, out in zip(x, m(x), strict=True):
        average = image.flatten(1).sum(dim=1) / 30
        hidden = (m.squeeze.weight @ average + m.squeeze.bias).clamp(min=0)
        weight = (m.excite.weight @ hidden + m.excite.bias).sigmoid()
        torch.testing.assert_close(
            out, torch.stack([w * c for w, c in zip(weight, image, strict=True)])
        )


@pytest.mark.parametrize(("frame", "sums"), [("full", [1, 1, 1]), ("add", [1, 2, 3])])
def test_rescan_frames(frame: Any, sums: list[int]) -> None:
    """The tail always returns 0.1; "add" detaches the sum of the previous estimates."""
    network = RESCAN(RESCANConfig(stages=3, channels=4, frame=frame))
    last = network.tail[2]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(0.1)
    rainy = torch.rand(1, 3, 5, 6)
    stages = network.stages(rainy)
    for stage, multiple in zip(stages, sums, strict=True):
        torch.testing.assert_close(stage, rainy - 0.1 * multiple)
    stages[-1].sum().backward()
    assert last.bias.grad is not None
    assert last.bias.grad.tolist() == [-30, -30, -30]


def test_prenet_with_the_recurrence_last() -> None:
    torch.manual_seed(0)
    network = PReNet(
        PReNetConfig(stages=2, channels=4, recurrence_last=True, global_residual=False)
    )
    assert network.recurrent is not None
    rainy = torch.rand(1, 3, 5, 6)
    state, x = None, rainy
    for stage in network.stages(rainy):
        u = network.head(torch.cat([rainy, x], dim=1)).relu()
        for block in network.blocks:
            u = (u + block(u)).relu()
        state = network.recurrent(u, state)
        x = network.tail(state[0])
        torch.testing.assert_close(stage, x)


def test_danet_shuffle_longhand() -> None:
    x = torch.randn(2, 8, 3, 4)
    out = shuffle(x)
    assert out.shape == (2, 2, 6, 8)
    for c in range(2):
        for i in range(2):
            for j in range(2):
                assert torch.equal(out[:, c, i::2, j::2], x[:, 4 * c + 2 * j + i])


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (5, 6)])
def test_danet_half_size_stage_starts_from_average_pooling(size: tuple[int, int]) -> None:
    network = DANet(DANetConfig(channels=8, blocks=1))
    rainy = torch.rand(1, 3, *size)
    with torch.no_grad():
        network.rain.tail.weight.zero_()
        half = network.stages(rainy)[0]
    torch.testing.assert_close(half, F.avg_pool2d(rainy, 2, ceil_mode=True))
