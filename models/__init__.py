"""JDNet and the networks it is compared with. They import only torch and take plain arguments.

`stages(rainy)` returns every output that the paper supervises, the final one last;
`forward(rainy)` returns the final one. JDNet.forward also accepts the window of a tile.
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
