"""Muon against an explicit computation and PyTorch's Adam."""

import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.optimizers import Muon, orthogonalize


def network_of(*shapes: tuple[int, ...], seed: int = 0) -> nn.ParameterList:
    torch.manual_seed(seed)
    return nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)


def give_gradients(network: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for p in network.parameters():
        p.grad = torch.randn_like(p)


def longhand_iteration(matrix: np.ndarray) -> np.ndarray:
    """Apply s -> 3.4445 s - 4.775 s^3 + 2.0315 s^5 five times to the singular values."""
    u, s, v = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    return np.asarray(u @ np.diag(s) @ v)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (8, 2, 1, 1), (1, 2, 1, 1), (3, 5)])
def test_muon_longhand(shape: tuple[int, ...]) -> None:
    network = network_of(shape)
    optimizer = Muon(network, lr=0.01, weight_decay=0.5, momentum=0.9)
    p = network[0]
    expected = p.detach().double().numpy().copy()
    momentum = np.zeros((shape[0], math.prod(shape[1:])))
    for step in range(4):
        give_gradients(network, step)
        assert p.grad is not None
        grad = p.grad.double().numpy().reshape(momentum.shape)
        momentum = 0.9 * momentum + 0.1 * grad
        update = longhand_iteration(0.9 * momentum + 0.1 * grad)
        update *= 0.2 * np.sqrt(max(momentum.shape))
        expected = expected * (1 - 0.01 * 0.5) - 0.01 * update.reshape(shape)
        optimizer.step()
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(32, 288), (288, 32), (16, 16), (1, 7)])
def test_singular_values_are_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape) * torch.tensor([1e-6, 1.0, 1e6]).view(3, 1, 1)
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.3  # some singular values of a random square matrix are near 0
    assert values.max() < 1.25
    assert not orthogonalize(torch.zeros(1, *shape)).any()


def test_filters_of_the_same_shape_are_independent() -> None:
    together = network_of((4, 3, 3, 3), (4, 3, 3, 3), (2, 4, 1, 1), (4,))
    separate = [nn.ParameterList([nn.Parameter(p.detach().clone())]) for p in together]
    optimizers = [Muon(network) for network in (together, *separate)]
    for step in range(3):
        give_gradients(together, step)
        for single, p in zip(separate, together, strict=True):
            single[0].grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for single, p in zip(separate, together, strict=True):
        torch.testing.assert_close(single[0], p, rtol=0, atol=1e-6)


def test_biases_and_norms_use_adam() -> None:
    ours, theirs = network_of((5,), (7,), seed=1), network_of((5,), (7,), seed=1)
    muon, adam = Muon(ours, lr=0.02), torch.optim.Adam(theirs, lr=0.02)
    for step in range(20):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        muon.step()
        adam.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 32, 3, 3), (32, 160, 1, 1), (32, 8, 1, 1)])
def test_muon_updates_have_the_rms_of_adam(shape: tuple[int, ...]) -> None:
    """Noisy gradients with a small mean, as late in training."""

    def root_mean_square_of_updates(make: type[Muon] | type[torch.optim.Adam]) -> float:
        network = network_of(shape)
        optimizer = Muon(network) if make is Muon else torch.optim.Adam(network.parameters())
        (p,) = network
        mean = 0.1 * p.detach().clone()
        for step in range(100):
            give_gradients(network, step)
            p.grad += mean
            before = p.detach().clone()
            optimizer.step()
        return float((p.detach() - before).square().mean().sqrt() / 1e-3)

    adam, muon = map(root_mean_square_of_updates, (torch.optim.Adam, Muon))
    assert adam == pytest.approx(0.25, rel=0.2)
    assert muon == pytest.approx(adam, rel=0.4)


def test_state_dict_round_trip() -> None:
    def steps(optimizer: Muon, network: nn.Module, which: range) -> None:
        for step in which:
            give_gradients(network, step)
            optimizer.step()

    shapes = ((4, 3, 3, 3), (4, 3, 3, 3), (6,))
    whole, broken = network_of(*shapes), network_of(*shapes)
    steps(Muon(whole), whole, range(6))
    first = Muon(broken)
    steps(first, broken, range(3))
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    second = Muon(broken)
    second.load_state_dict(torch.load(stream, weights_only=True))
    steps(second, broken, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, broken, strict=True))


def test_a_network_without_biases() -> None:
    layer = nn.Conv2d(2, 2, 1, bias=False)
    optimizer = Muon(layer)
    loss: Tensor = layer(torch.ones(1, 2, 1, 1)).sum()
    loss.backward()
    before = layer.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(layer.weight, before)


def test_muon_with_frozen_parameters() -> None:
    """Parameters without a gradient stay as they are; another set of filters is refused."""
    network = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    optimizer = Muon(network, 0.1, 0)
    optimizer.step()  # no gradient at all
    biases = [layer.bias for layer in network if isinstance(layer, nn.Conv2d)]
    for bias in biases:
        assert bias is not None
        bias.requires_grad_(False)
    before = [p.detach().clone() for p in network.parameters()]
    network(torch.rand(1, 2, 8, 8)).sum().backward()
    optimizer.step()
    changed = [not torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True)]
    assert changed == [True, False, True, False]
    network[1].weight.grad = None
    with pytest.raises(ValueError, match="gradients of the same parameters in every step"):
        optimizer.step()
