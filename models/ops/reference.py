"""Pairwise attention as a text book has it: slow, large, and easy to check by eye."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.activation import SLOPE


def pairwise_attention_reference(
    phi: Tensor, psi: Tensor, beta: Tensor, position: Tensor, gamma: Tensor, footprint: int
) -> Tensor:
    """Compute what `pairwise_attention` does; every feature is copied footprint**2 times."""
    n, _, h, w = beta.shape

    def neighbours(x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, K*K, H, W]
        padded = F.pad(x, [footprint // 2] * 4, mode="reflect")
        return F.unfold(padded, footprint).view(len(x), -1, footprint**2, h, w)

    content = phi.unsqueeze(2) - neighbours(psi)
    place = (position.unsqueeze(2) - neighbours(position)).expand(n, -1, -1, -1, -1)
    delta = torch.cat([content, place], dim=1)
    logits = (F.leaky_relu(delta, SLOPE) * gamma.view(1, -1, 1, 1, 1)).sum(dim=1)
    alpha = logits.softmax(dim=1)
    return (alpha.unsqueeze(1) * neighbours(beta)).sum(dim=2)
