"""Training losses (JDNet paper, section 3.5, Table 3), in float32 whatever the precision."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from utils.metrics import ssim_map


def negative_ssim(derained: Tensor, clean: Tensor) -> Tensor:
    """-SSIM (Eq. 15), as released: not clamped, zero padding, mean over pixels and channels.

    Args:
        derained: [B, C, H, W], nominally in [0, 1].
        clean: the same shape, in [0, 1].

    Returns:
        A scalar in [-1, 1], -1 for equal images.
    """
    return -ssim_map(derained.float(), clean.float(), peak=1, padding="zero").mean()


def mae(derained: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error; arguments as for `negative_ssim`."""
    return F.l1_loss(derained.float(), clean.float())


def mse(derained: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error; arguments as for `negative_ssim`."""
    return F.mse_loss(derained.float(), clean.float())


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ssim": negative_ssim,
    "mae": mae,
    "mse": mse,
}
