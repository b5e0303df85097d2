"""Parity with the released codes: weights derived from their keys, outputs from fixtures."""

import json
import zlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from models import Network
from tools.released_keys import released_key

N = TypeVar("N", bound=Network)
FIXTURES = Path(__file__).parent / "fixtures"


def load_fixture(name: str) -> dict[str, Any]:
    fixture: dict[str, Any] = json.loads((FIXTURES / name).read_text())
    return fixture


def released_names(network: Network) -> dict[str, str]:
    """Map our keys to the released ones."""
    name = type(network).__name__.lower()
    return {key: released_key(name, key) for key in network.state_dict()}


def filled(network: N, dtype: torch.dtype) -> N:
    """Fill every tensor with random values seeded by its released key, as for the fixtures."""
    network.double()
    names = released_names(network)
    for key, tensor in network.state_dict().items():
        released, shape = names[key], tuple(tensor.shape)
        leaf = released.rsplit(".", 1)[1]
        random = np.random.RandomState(zlib.crc32(released.encode()) & 0xFFFFFFFF)
        if leaf == "num_batches_tracked":
            continue
        if leaf == "running_var":
            values = 0.5 + random.rand(*shape)
        elif leaf in ("running_mean", "bias"):
            values = 0.1 * random.standard_normal(shape)
        elif shape == (1,):  # shared PReLU slopes of DANet
            values = np.full(shape, 0.15 if released.startswith("dsnet.") else 0.30)
        elif len(shape) == 1:
            values = 0.5 + random.rand(*shape)
        else:
            values = random.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
        tensor.copy_(torch.from_numpy(np.asarray(values)))
    network.to(dtype).eval()
    return network


def fixture_input(shape: str, dtype: torch.dtype, seed: int = 1) -> Tensor:
    sides = [int(side) for side in shape.split("x")]
    return torch.from_numpy(np.random.RandomState(seed).rand(*sides)).to(dtype)


def assert_matches(output: Tensor, expected: dict[str, Any], tolerance: float) -> None:
    assert list(output.shape) == expected["shape"]
    probes = output.flatten()[expected["probe_index"]].tolist()
    assert probes == pytest.approx(expected["probe"], rel=tolerance, abs=tolerance)
    for key, value in (
        ("sum", output.double().sum()),
        ("abs_sum", output.double().abs().sum()),
        ("min", output.min()),
        ("max", output.max()),
    ):
        assert value.item() == pytest.approx(expected[key], rel=tolerance)


def assert_gradients_match(
    network: Network, loss: Tensor, expected: dict[str, Any], tolerance: float
) -> None:
    """Compare the loss, the total gradient norm and the largest gradient norms."""
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=tolerance)
    names = released_names(network)
    norms = {
        names[key]: p.grad.double().norm().item()
        for key, p in network.named_parameters()
        if p.grad is not None
    }
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    assert total == pytest.approx(expected["total_norm"], rel=tolerance)
    for norm, key in expected["largest"]:
        assert norms[key] == pytest.approx(norm, rel=tolerance)
