"""All networks, each with its config. A new network is one entry here."""

from collections.abc import Callable
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

NETWORKS: dict[type[NetworkConfig], Callable[[Any], Network]] = {
    JDNetConfig: JDNet,
    DCSFNConfig: DCSFN,
    DANetConfig: DANet,
    PReNetConfig: PReNet,
    RESCANConfig: RESCAN,
}
CONFIG_CLASSES = {config.name: config for config in NETWORKS}


def build(config: NetworkConfig) -> Network:
    """Build a network with random weights, on the CPU."""
    return NETWORKS[type(config)](config)


def config_of(name: str, arguments: dict[str, Any]) -> NetworkConfig:
    """The config of a network that a file describes by name and arguments.

    Raises:
        UserError: there is no such network, or it does not have these arguments.
    """
    if name not in CONFIG_CLASSES:
        raise UserError(f"no network {name!r}: this version has {', '.join(CONFIG_CLASSES)}")
    try:
        return CONFIG_CLASSES[name](**arguments)
    except TypeError as error:
        raise UserError(f"this version cannot build such a {name}: {error}") from None
