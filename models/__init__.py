"""JDNet and the networks it is compared with. They import only torch and take plain arguments.

`stages(rainy)` returns every output that the paper supervises, the final one last;
`forward(rainy)` returns the final one. JDNet.forward also accepts the window of a tile.
"""

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from models.jdnet.network import JDNet
from models.siblings.danet import DANet
from models.siblings.dcsfn import DCSFN
from models.siblings.prenet import PReNet
from models.siblings.rescan import RESCAN

__all__ = [
    "DCSFN",
    "NETWORKS",
    "RESCAN",
    "DANet",
    "JDNet",
    "Network",
    "PReNet",
    "load_network",
    "place",
]

N = TypeVar("N", bound=nn.Module)
Network = JDNet | DCSFN | DANet | PReNet | RESCAN

NETWORKS: dict[str, type[Network]] = {
    "jdnet": JDNet,
    "dcsfn": DCSFN,
    "danet": DANet,
    "prenet": PReNet,
    "rescan": RESCAN,
}


def load_network(weights: str | Path, device: torch.device | str = "cpu") -> Network:
    """Build the network that a weights file describes, in evaluation mode.

    Args:
        weights: path, as in "weights/jdnet-small-real.safetensors" or "runs/rain100l/best.pt".
        device: where to put the network.

    Raises:
        UserError: the file cannot be read, or its network is unknown or does not fit.
    """
    from models.load import open_network  # it imports this module

    return open_network(Path(weights), device)


def place(network: N, device: torch.device | str) -> N:
    """Move a network to a device, before or after loading its weights.

    On a GPU the filters of JDNet become channels-last, like its features. cuDNN would otherwise
    copy every filter to this layout in every call. On the CPU this gains nothing.
    """
    network = network.to(device)
    if isinstance(network, JDNet) and torch.device(device).type != "cpu":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
