"""The networks of the papers. They import torch alone and take plain arguments."""

from torch import nn

from models.jdnet import JDNet

NETWORKS: dict[str, type[nn.Module]] = {"jdnet": JDNet}
