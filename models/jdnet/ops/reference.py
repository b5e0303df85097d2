"""Textbook pairwise attention (Eq. 2-4): slow and memory-hungry, but easy to check by eye."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.jdnet.activation import SLOPE


def pairwise_attention_reference(
    phi: Tensor, psi: Tensor, beta: Tensor, position: Tensor, gamma: Tensor, footprint: int
) -> Tensor:
    """Same as `pairwise_attention`, but copies every feature footprint**2 times."""
    n, _, h, w = beta.shape
    delta = differences(phi, psi, position, footprint)  # Eq. 4
    logits = (F.leaky_relu(delta, SLOPE) * gamma.view(1, -1, 1, 1)).sum(dim=1)
    alpha = logits.softmax(dim=1)  # Eq. 3
    y = (alpha.unsqueeze(1) * neighbours(beta, footprint)).sum(dim=2)  # Eq. 2
    return y.view(n, -1, h, w)


def differences(phi: Tensor, psi: Tensor, position: Tensor, footprint: int) -> Tensor:
    """Eq. 4: differences of features, then of positions, [B, R + P, K*K, H*W]."""
    content = phi.flatten(2).unsqueeze(2) - neighbours(psi, footprint)
    place = position.flatten(2).unsqueeze(2) - neighbours(position, footprint)
    return torch.cat([content, place.expand(len(phi), -1, -1, -1)], dim=1)


def neighbours(x: Tensor, footprint: int) -> Tensor:
    """Unfold the footprint of every pixel: [B, C, H, W] -> [B, C, K*K, H*W]; reflected border."""
    padded = F.pad(x, [footprint // 2] * 4, mode="reflect")
    return F.unfold(padded, footprint).view(*x.shape[:2], footprint**2, -1)
