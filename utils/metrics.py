"""PSNR and SSIM in named conventions. Scores of different conventions are not comparable.

    y          8-bit rounded luma (BT.601, 16-235), peak 255, SSIM over the valid window. The
               convention of most tables (MSPFN, MPRNet, Restormer).
    y-float    unrounded luma, peak 255; SSIM after down-sampling by max(1, round(min(H, W) / 256)).
               The RCDNet lineage.
    y-prenet   as y-float, but the derained image is truncated to 8 bits instead of rounded, as the
               released PReNet saves it: about 0.2 dB lower.
    rgb        8-bit RGB as scikit-image scores it, SSIM averaged over the channels.
    rgb-jdnet  the released JDNet script: floats are not rounded, PSNR of the clipped output, SSIM
               of the unclipped output with zero padding.

All but rgb-jdnet first clamp the derained image and convert it to 8 bits, as saving it would.
SSIM is that of Wang et al. (2004): 11x11 Gaussian window, sigma 1.5, K1 0.01, K2 0.03.

With a mask, PSNR is over its pixels, and SSIM over the windows that lie in it.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.conventions import CONVENTIONS, Convention

WINDOW, SIGMA = 11, 1.5
Padding = Literal["valid", "zero"]


class Score(NamedTuple):
    """PSNR in dB (inf for equal images) and SSIM, one value per image."""

    psnr: Tensor
    ssim: Tensor


def score(
    derained: Tensor, clean: Tensor, convention: Convention, mask: Tensor | None = None
) -> Score:
    """Score images in a named convention, computed in float64.

    Args:
        derained: [B, 3, H, W] or [3, H, W], RGB; uint8, or floats in [0, 1] (values outside
            are clamped as the convention says).
        clean: ground truth of the same shape.
        convention: one of `CONVENTIONS`.
        mask: bool [H, W], True where the ground truth is known; None where it is everywhere.

    Returns:
        PSNR and SSIM, float64 [B], or scalars for [3, H, W]. SSIM is NaN if no window lies in the
        mask.

    Raises:
        ValueError: shapes differ, integers are not uint8, the convention is unknown, the mask is
            empty, or the image is smaller than the 11x11 window of a convention that uses the valid
            window.

    >>> image = torch.full((3, 16, 16), 0.5)
    >>> score(image + 1 / 255, image, "rgb").psnr.item()  # 20 log10(255)
    48.13080360867911
    """
    if derained.shape != clean.shape or derained.dim() not in (3, 4):
        raise ValueError(
            f"expected two images of the same shape, got {tuple(derained.shape)} and "
            f"{tuple(clean.shape)}"
        )
    if convention not in _SCORERS:
        raise ValueError(f"no convention {convention!r}: there are {', '.join(CONVENTIONS)}")
    if mask is not None and (mask.shape != derained.shape[-2:] or not mask.any()):
        raise ValueError(
            f"expected a mask of {tuple(derained.shape[-2:])} pixels that is not empty, got "
            f"{tuple(mask.shape)} with {int(mask.sum())}"
        )
    single = derained.dim() == 3
    a, b = (_unit_float64(x.unsqueeze(0) if single else x) for x in (derained, clean))
    result = _SCORERS[convention](a, b, mask)
    return Score(result.psnr[0], result.ssim[0]) if single else result


def _unit_float64(x: Tensor) -> Tensor:
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise ValueError(f"expected uint8 or floats in [0, 1], got {x.dtype}")
    return x.double() / 255 if x.dtype == torch.uint8 else x.double()


def _score_y(a: Tensor, b: Tensor, mask: Tensor | None) -> Score:
    a, b = (_luma(_eight_bit(x)).add(0.5).floor() for x in (a, b))  # MATLAB rounds half up
    return Score(_psnr(a, b, 255, mask), _ssim(a, b, 255, mask))


def _score_y_float(a: Tensor, b: Tensor, mask: Tensor | None) -> Score:
    a, b = (_luma(_eight_bit(x)) for x in (a, b))
    small = mask if mask is None else _shrink(mask.double()[None, None])[0, 0] > 1 - 1e-9
    return Score(_psnr(a, b, 255, mask), _ssim(_shrink(a), _shrink(b), 255, small))


def _score_y_prenet(a: Tensor, b: Tensor, mask: Tensor | None) -> Score:
    # In float32, as released, so that 8-bit values are exact.
    cut = (a.float().clamp(0, 1) * 255).floor()
    return _score_y_float(cut.double() / 255, b, mask)


def _score_rgb(a: Tensor, b: Tensor, mask: Tensor | None) -> Score:
    a, b = (_eight_bit(x) for x in (a, b))
    return Score(_psnr(a, b, 255, mask), _ssim(a, b, 255, mask))


def _score_rgb_jdnet(a: Tensor, b: Tensor, mask: Tensor | None) -> Score:
    psnr = _psnr(a.clamp(0, 1), b.clamp(0, 1), 1, mask)
    return Score(psnr, _ssim(a, b, 1, mask, "zero"))


_SCORERS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Score]] = {
    "y": _score_y,
    "y-float": _score_y_float,
    "y-prenet": _score_y_prenet,
    "rgb": _score_rgb,
    "rgb-jdnet": _score_rgb_jdnet,
}


def _eight_bit(x: Tensor) -> Tensor:
    """[0, 1] -> integers in [0, 255]."""
    return x.clamp(0, 1).mul(255).round()


def _luma(x: Tensor) -> Tensor:
    """MATLAB's rgb2ycbcr, first channel: [B, 3, H, W] in [0, 255] -> [B, 1, H, W] in [16, 235].

    The weights are integers over 255,000, so the sum is exact and halves round correctly.
    """
    weights = torch.tensor([65481, 128553, 24966], dtype=x.dtype, device=x.device)
    return (x * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True) / 255_000 + 16


def _psnr(a: Tensor, b: Tensor, peak: float, mask: Tensor | None) -> Tensor:
    return 10 * torch.log10(peak**2 / _mean((a - b).square(), mask))


def _ssim(
    a: Tensor, b: Tensor, peak: float, mask: Tensor | None, padding: Padding = "valid"
) -> Tensor:
    values = ssim_map(a, b, peak, padding)
    if mask is None:
        return _mean(values, None)
    outside = (~mask).double()[None, None]
    # max_pool2d pads with -inf: the zeros around the image are nothing that the mask leaves out.
    touched = F.max_pool2d(outside, WINDOW, stride=1, padding=WINDOW // 2 * (padding == "zero"))
    return _mean(values, touched[0, 0].to(values.device) == 0)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over channels and pixels, [B, C, H, W] -> [B]; NaN over an empty mask [H, W]."""
    return values.mean(dim=(1, 2, 3)) if mask is None else values[..., mask].mean(dim=(1, 2))


def _shrink(x: Tensor) -> Tensor:
    """MATLAB ssim.m v2009: box filter with mirrored border, then subsampling by f."""
    factor = max(1, int(min(x.shape[2:]) / 256 + 0.5))
    if factor == 1:
        return x
    before, after = (factor - 1) // 2, factor // 2
    x = _mirror(_mirror(x, 2, before, after), 3, before, after)
    return F.avg_pool2d(x, factor, stride=factor)


def _mirror(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Pad by mirroring, edge included ('symmetric' in MATLAB)."""
    length = x.shape[dim]
    head = x.narrow(dim, 0, before).flip(dim)
    tail = x.narrow(dim, length - after, after).flip(dim)
    return torch.cat([head, x, tail], dim=dim)


def ssim_map(a: Tensor, b: Tensor, peak: float, padding: Padding = "valid") -> Tensor:
    """Structural similarity at every window (Wang et al. 2004, Eq. 13).

    Args:
        a: [B, C, H, W].
        b: the same shape.
        peak: maximum possible pixel value.
        padding: "valid" uses only windows inside the image, "zero" pads the image with zeros.

    Returns:
        [B, C, H - 10, W - 10] for "valid", [B, C, H, W] for "zero"; in the dtype of `a`.

    Raises:
        ValueError: "valid" with H or W below 11.
    """
    h, w = a.shape[2:]
    if padding == "valid" and min(h, w) < WINDOW:
        raise ValueError(f"SSIM needs at least {WINDOW}x{WINDOW} pixels, got {h}x{w}")
    with torch.autocast(a.device.type, enabled=False):
        moments = torch.stack([a, b, a * a, b * b, a * b])
        # The separable blur as two products with banded matrices: much faster than a depthwise
        # convolution.
        blurred = _blur_matrix(h, padding, a) @ moments @ _blur_matrix(w, padding, a).T
        mean_a, mean_b, mean_aa, mean_bb, mean_ab = blurred.unbind()
        var_a, var_b = mean_aa - mean_a**2, mean_bb - mean_b**2
        cov = mean_ab - mean_a * mean_b
        c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
        return ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / (
            (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
        )


def _blur_matrix(length: int, padding: str, like: Tensor) -> Tensor:
    """The Gaussian as a banded matrix, [length or length - 10, length]; inner rows sum to 1."""
    radius = WINDOW // 2
    index = torch.arange(length, device=like.device, dtype=torch.float64)
    centres = index if padding == "zero" else index[radius : length - radius]
    distance = index - centres.unsqueeze(1)
    taps = torch.exp(-(distance**2) / (2 * SIGMA**2)) * (distance.abs() <= radius)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    total = torch.exp(-(offsets**2) / (2 * SIGMA**2)).sum().item()
    return (taps / total).to(like.dtype)
