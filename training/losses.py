"""Training losses, computed in float32 whatever the precision of the network.

A loss takes all supervised outputs of a network, the final one last, and the ground truth,
[B, C, H, W], nominally in [0, 1]. An output may be smaller than the ground truth. It returns a
scalar to minimise.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from config.schema import Training
from utils.metrics import ssim_map

Loss = Callable[[Sequence[Tensor], Tensor], Tensor]


def negative_ssim(stages: Sequence[Tensor], clean: Tensor) -> Tensor:
    """Negative SSIM of the final output, unclamped, with zero padding (JDNet paper, Eq. 15)."""
    return -ssim_map(stages[-1].float(), clean.float(), peak=1, padding="zero").mean()


def mae(stages: Sequence[Tensor], clean: Tensor) -> Tensor:
    """Mean absolute error of the final output."""
    return F.l1_loss(stages[-1].float(), clean.float())


def mse(stages: Sequence[Tensor], clean: Tensor) -> Tensor:
    """Mean squared error of the final output."""
    return F.mse_loss(stages[-1].float(), clean.float())


def ssim_l1(stages: Sequence[Tensor], clean: Tensor, weight: float = 1.0) -> Tensor:
    """Negative SSIM plus `weight` times the mean absolute error.

    SSIM alone is nearly insensitive to a change of brightness, which lowers the PSNR.
    """
    return negative_ssim(stages, clean) + weight * mae(stages, clean)


def mse_of_stages(stages: Sequence[Tensor], clean: Tensor) -> Tensor:
    """Sum of the mean squared errors of all outputs (RESCAN)."""
    return torch.stack([mse([stage], clean) for stage in stages]).sum()


def danet(stages: Sequence[Tensor], clean: Tensor) -> Tensor:
    """0.3 Charbonnier + 0.2 edge - 0.15 SSIM (DANet).

    The half-size output, the first one, enters the first two terms with weight 0.8.
    """
    half, full = (stage.float() for stage in stages)
    clean = clean.float()
    clean_half = F.interpolate(clean, half.shape[2:], mode="bilinear", align_corners=False)
    pixels = _charbonnier(full, clean) + 0.8 * _charbonnier(half, clean_half)
    edges = _charbonnier(_laplacian(full), _laplacian(clean))
    edges = edges + 0.8 * _charbonnier(_laplacian(half), _laplacian(clean_half))
    return 0.3 * pixels + 0.2 * edges + 0.15 * negative_ssim([full], clean)


def _charbonnier(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).square() + 1e-6).sqrt().mean()


def _laplacian(x: Tensor) -> Tensor:
    """Laplacian pyramid detail: x minus its blurred, down-sampled and up-sampled copy."""
    thin = torch.zeros_like(x)
    thin[:, :, ::2, ::2] = 4 * _blur(x)[:, :, ::2, ::2]
    return x - _blur(thin)


def _blur(x: Tensor) -> Tensor:
    taps = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05], dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(x, [2] * 4, mode="replicate"), kernel, groups=x.shape[1])


LOSSES: dict[str, Loss] = {
    "ssim": negative_ssim,
    "ssim-l1": ssim_l1,  # with weight `Training.l1_weight`, see `make_loss`
    "mae": mae,
    "mse": mse,
    "mse-stages": mse_of_stages,
    "danet": danet,
}
# Losses with values near -1, and the name under which the log shows 1 + loss.
NEAR_MINUS_ONE = {"ssim": "1-ssim", "ssim-l1": "1-ssim+l1"}


def make_loss(recipe: Training) -> Loss:
    """Return the loss of a recipe."""
    if recipe.loss == "ssim-l1":
        return partial(ssim_l1, weight=recipe.l1_weight)
    return LOSSES[recipe.loss]


def log_entry(recipe: Training, loss: float) -> dict[str, float]:
    """Name and value of the loss as logged."""
    if recipe.loss in NEAR_MINUS_ONE:
        return {NEAR_MINUS_ONE[recipe.loss]: 1 + loss}
    return {recipe.loss: loss}
