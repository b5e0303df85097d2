"""What every implementation of the pairwise attention takes."""

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """Tensors of one call; K is the footprint.

    Keys, values and the second copy of the position come padded by K // 2 on every side, reflected.
    Gradients come back in the same shape.
    """

    phi: Tensor  # [B, R, H, W]
    psi: Tensor  # [B, R, H + K - 1, W + K - 1]
    beta: Tensor  # [B, V, H + K - 1, W + K - 1]
    position: Tensor  # [1, P, H, W]
    position_padded: Tensor  # [1, P, H + K - 1, W + K - 1]
    gamma: Tensor  # [R + P]
