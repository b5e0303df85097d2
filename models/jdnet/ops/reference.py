"""Pairwise attention as a text book has it: slow, large, and easy to check by eye."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.jdnet.activation import SLOPE


def pairwise_attention_reference(
    phi: Tensor, psi: Tensor, beta: Tensor, position: Tensor, gamma: Tensor, footprint: int
) -> Tensor:
    """Compute what `pairwise_attention` does; every feature is copied footprint**2 times."""
    n, _, h, w = beta.shape
    delta = differences(phi, psi, position, footprint)
    logits = (F.leaky_relu(delta, SLOPE) * gamma.view(1, -1, 1, 1)).sum(dim=1)
    alpha = logits.softmax(dim=1)
    return (alpha.unsqueeze(1) * neighbours(beta, footprint)).sum(dim=2).view(n, -1, h, w)


def differences(phi: Tensor, psi: Tensor, position: Tensor, footprint: int) -> Tensor:
    """What the relation takes: of features, then of position, [B, R + P, K*K, H*W]."""
    content = phi.flatten(2).unsqueeze(2) - neighbours(psi, footprint)
    place = position.flatten(2).unsqueeze(2) - neighbours(position, footprint)
    return torch.cat([content, place.expand(len(phi), -1, -1, -1)], dim=1)


def neighbours(x: Tensor, footprint: int) -> Tensor:
    """The footprint of every pixel, reflected at the border: [B, C, H, W] -> [B, C, K*K, H*W]."""
    padded = F.pad(x, [footprint // 2] * 4, mode="reflect")
    return F.unfold(padded, footprint).view(*x.shape[:2], footprint**2, -1)
