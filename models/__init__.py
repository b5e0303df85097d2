"""The networks of the papers. They import torch alone and take plain arguments."""

from torch import nn

from models.jdnet import JDNet

__all__ = ["NETWORKS", "JDNet"]

NETWORKS: dict[str, type[nn.Module]] = {"jdnet": JDNet}
