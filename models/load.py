"""Build a network from a weights file."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from config.networks import JDNetConfig, NetworkConfig
from models.jdnet.network import JDNet
from models.network import Network
from models.registry import build, config_of
from utils import checkpoint
from utils.checkpoint import Weights, load_weights
from utils.errors import UserError


def load_network(path: str | Path, device: torch.device | str = "cpu") -> Network:
    """Build the network that a weights file describes, in evaluation mode.

    Args:
        path: as in "weights/jdnet-small-real.safetensors" or "runs/rain100l/best.pt".
        device: where to put the network.

    Raises:
        UserError: the file cannot be read, or its network is unknown or does not fit.
    """
    return network_of(load_weights(Path(path))).place(device).eval()


def network_of(weights: Weights, fallback: NetworkConfig | None = None) -> Network:
    """Build the network of loaded weights, on the CPU.

    Args:
        weights: from `load_weights`.
        fallback: config used if the file does not describe its network; default: the JDNet of the
            paper.

    Raises:
        UserError: the network is unknown or does not fit.
    """
    config = fallback or JDNetConfig()
    if weights.network:
        try:
            config = config_of(weights.network, weights.arguments)
        except UserError as error:
            raise UserError(f"{weights.path}: {error}") from None
    network = build(config)
    checkpoint.load_state(network, weights.state, weights.path)
    return network


def grow(network: Network, state: dict[str, Tensor]) -> dict[str, Tensor]:
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
