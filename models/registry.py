"""The networks by their configs. A new network is one line here."""

from typing import Any

from config.networks import (
    DANetConfig,
    DCSFNConfig,
    JDNetConfig,
    NetworkConfig,
    PReNetConfig,
    RESCANConfig,
)
from models.jdnet.network import JDNet
from models.network import Network
from models.siblings.danet import DANet
from models.siblings.dcsfn import DCSFN
from models.siblings.prenet import PReNet
from models.siblings.rescan import RESCAN
from utils.errors import UserError

NETWORKS: dict[type[NetworkConfig], Any] = {
    JDNetConfig: JDNet,
    DCSFNConfig: DCSFN,
    DANetConfig: DANet,
    PReNetConfig: PReNet,
    RESCANConfig: RESCAN,
}
CONFIGS = {config.name: config for config in NETWORKS}


def build(config: NetworkConfig) -> Network:
    """Build a network with random weights, on the CPU."""
    return NETWORKS[type(config)](config)


def config_of(name: str, arguments: dict[str, Any]) -> NetworkConfig:
    """The config of a network that a file describes by name and arguments.

    Raises:
        UserError: there is no such network, or it does not have these arguments.
    """
    if name not in CONFIGS:
        raise UserError(f"no network {name!r}: this version has {', '.join(CONFIGS)}")
    try:
        return CONFIGS[name](**arguments)
    except TypeError as error:
        raise UserError(f"this version cannot build such a {name}: {error}") from None
