"""The networks of the papers. They import torch alone and take plain arguments.

Each has `stages(rainy)`, all outputs that its paper supervises, the final one last, and
`forward(rainy)`, only the final one. JDNet.forward also takes the place of a tile in its image.
"""

from models.jdnet.network import JDNet
from models.siblings.danet import DANet
from models.siblings.dcsfn import DCSFN
from models.siblings.prenet import PReNet
from models.siblings.rescan import RESCAN

__all__ = ["DCSFN", "NETWORKS", "RESCAN", "DANet", "JDNet", "Network", "PReNet"]

Network = JDNet | DCSFN | DANet | PReNet | RESCAN

NETWORKS: dict[str, type[Network]] = {
    "jdnet": JDNet,
    "dcsfn": DCSFN,
    "danet": DANet,
    "prenet": PReNet,
    "rescan": RESCAN,
}
