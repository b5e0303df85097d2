"""The inputs of every implementation of the pairwise attention."""

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """Input tensors; K is the footprint.

    Keys, values and the second copy of the position are reflection-padded by K // 2 on every side.
    The same tuple holds the gradients, with the same shapes.
    """

    phi: Tensor  # [B, R, H, W]
    psi: Tensor  # [B, R, H + K - 1, W + K - 1]
    beta: Tensor  # [B, V, H + K - 1, W + K - 1]
    position: Tensor  # [1, P, H, W]
    position_padded: Tensor  # [1, P, H + K - 1, W + K - 1]
    gamma: Tensor  # [R + P]
