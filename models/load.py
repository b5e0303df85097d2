"""Build a network from a weights file."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import NETWORKS, JDNet, Network, place
from utils import checkpoint
from utils.errors import UserError


def open_network(
    path: Path,
    device: torch.device | str = "cpu",
    name: str = "jdnet",
    arguments: dict[str, Any] | None = None,
) -> Network:
    """Build the network that a weights file describes, and load its weights, in evaluation mode.

    Args:
        path: weights, see `utils.checkpoint.load_weights`.
        device: where to put the network.
        name: network of `models.NETWORKS`, used if the file does not name its own.
        arguments: constructor arguments, used if the file has none; None means the defaults.

    Raises:
        UserError: the file cannot be read, or its network is unknown or does not fit.
    """
    weights = checkpoint.load_weights(path)
    name = weights.network or name
    arguments = weights.arguments or arguments or {}
    if name not in NETWORKS:
        raise UserError(f"{path} holds a {name!r} network: this version has {', '.join(NETWORKS)}")
    try:
        network = NETWORKS[name](**arguments)
    except TypeError as error:
        raise UserError(f"{path} describes a {name} this version cannot build: {error}") from None
    checkpoint.load_state(network, weights.state, path)
    return place(network, device).eval()


def grow(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Extend the weights of a JDNet to one with more units that computes the same function.

    The old units come first. Each new fusion copies the last old one, with zero weights for the
    features of the new units.

    Args:
        network: the larger JDNet; its new units keep their weights.
        state: state dict, returned unchanged unless `network` is a JDNet with more units.
    """
    units = 0
    while f"dense.{units}.weight" in state:
        units += 1
    if not isinstance(network, JDNet) or not 0 < units < len(network.units):
        return state
    own, grown = network.state_dict(), dict(state)
    weight, bias = state[f"dense.{units - 1}.weight"], state.get(f"dense.{units - 1}.bias")
    for unit in range(units, len(network.units)):
        grown |= {key: own[key] for key in own if key.startswith(f"units.{unit}.")}
        zeros = [0] * 4 + [0, (unit - units + 1) * len(weight)]
        grown[f"dense.{unit}.weight"] = F.pad(weight, zeros)
        grown |= {} if bias is None else {f"dense.{unit}.bias": bias}
    return grown
