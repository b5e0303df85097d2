"""JDNet, the networks it is compared with, and `Derainer`, which applies them to images."""

from models.derainer import Derainer
from models.jdnet.network import JDNet
from models.load import load_network
from models.network import Network
from models.siblings.danet import DANet
from models.siblings.dcsfn import DCSFN
from models.siblings.prenet import PReNet
from models.siblings.rescan import RESCAN

__all__ = ["DCSFN", "RESCAN", "DANet", "Derainer", "JDNet", "Network", "PReNet", "load_network"]
