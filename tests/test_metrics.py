"""Each convention against an independent implementation."""

import csv
import math

import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch
from parity import FIXTURES, load_fixture
from torch import Tensor

from utils.conventions import CONVENTIONS, Convention
from utils.metrics import score, ssim_map

GOLDEN = list(csv.DictReader((FIXTURES / "metrics.csv").read_text().splitlines()))
RELEASED = load_fixture("metrics-released.json")


def golden_pair(case: str) -> tuple[Tensor, Tensor]:
    """The image of a golden case and its noisy copy: uint8 [3, H, W]."""
    name, strength = case.split("-")
    image = getattr(skimage.data, name)().astype(int)
    y, x, c = np.indices(image.shape)
    period = 2 * int(strength) + 1
    noisy = np.clip(image + (7 * y + 13 * x + 5 * c) % period - int(strength), 0, 255)
    first, second = (torch.from_numpy(a.astype(np.uint8)).permute(2, 0, 1) for a in (noisy, image))
    return first, second


def released_pair() -> tuple[Tensor, Tensor]:
    clean = np.random.RandomState(1).rand(1, 3, 64, 72)
    noise = 0.1 * np.random.RandomState(2).standard_normal(clean.shape)
    return torch.from_numpy(clean + noise), torch.from_numpy(clean)


@pytest.mark.parametrize("row", GOLDEN, ids=[row["case"] for row in GOLDEN])
@pytest.mark.parametrize("convention", ["y", "y-float"])
def test_golden_matlab_values(row: dict[str, str], convention: Convention) -> None:
    column = convention.replace("-", "")
    result = score(*golden_pair(row["case"]), convention)
    # Exact halves of `y` depend on Octave's rounding errors: differences of up to 1.2e-5 dB.
    assert result.psnr.item() == pytest.approx(float(row[f"{column}_psnr"]), abs=1.5e-5)
    assert result.ssim.item() == pytest.approx(float(row[f"{column}_ssim"]), abs=6e-7)


def test_released_jdnet_script() -> None:
    result = score(*released_pair(), "rgb-jdnet")
    assert result.psnr.item() == pytest.approx(RELEASED["JDNet_PSNR_clipped"], abs=1e-10)
    ssim = RELEASED["official_SSIM_torch_unclipped_float64"]
    assert result.ssim.item() == pytest.approx(ssim, abs=2e-8)  # its window is float32


def test_released_danet_script() -> None:
    """DANet is evaluated in convention `y`."""
    result = score(*released_pair(), "y")
    psnr = RELEASED["DANet_eval_PSNR_Y(uint8 path, round uint8)"]
    ssim = RELEASED["DANet_eval_SSIM_Y(valid, uint8 path)"]
    assert result.psnr.item() == pytest.approx(psnr, abs=1e-10)
    assert result.ssim.item() == pytest.approx(ssim, abs=1e-10)


def test_released_prenet_script() -> None:
    """PReNet is evaluated in convention `y-prenet`: truncated to 8 bits, unrounded luma."""
    result = score(*released_pair(), "y-prenet")
    psnr = RELEASED["PReNet_eval_PSNR_Y(double path, trunc uint8)"]
    ssim = RELEASED["PReNet_eval_SSIM_Y(valid, double path, no downsample since min side<384)"]
    assert result.psnr.item() == pytest.approx(psnr, abs=1e-9)
    assert result.ssim.item() == pytest.approx(ssim, abs=1e-9)


def test_rgb_equals_scikit_image() -> None:
    noisy, clean = golden_pair("chelsea-20")
    a, b = (x.permute(1, 2, 0).numpy() for x in (noisy, clean))
    result = score(noisy, clean, "rgb")
    psnr = skimage.metrics.peak_signal_noise_ratio(b, a)
    ssim = skimage.metrics.structural_similarity(
        a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert result.psnr.item() == pytest.approx(psnr, abs=1e-10)
    assert result.ssim.item() == pytest.approx(ssim, abs=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_batch_scores_equal_single_scores(convention: Convention) -> None:
    torch.manual_seed(0)
    a, b = torch.rand(3, 3, 20, 24), torch.rand(3, 3, 20, 24)
    together = score(a, b, convention)
    separate = [score(x, y, convention) for x, y in zip(a, b, strict=True)]
    assert together.psnr.tolist() == pytest.approx([s.psnr.item() for s in separate], abs=1e-12)
    assert together.ssim.tolist() == pytest.approx([s.ssim.item() for s in separate], abs=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_integers_and_floats_have_equal_scores(convention: Convention) -> None:
    a, b = (x[:, :40, :50] for x in golden_pair("coffee-20"))
    as_floats = score(a / 255, b / 255, convention)
    assert score(a, b, convention).psnr.item() == pytest.approx(as_floats.psnr.item(), abs=1e-5)


def test_truncation_keeps_8_bit_levels() -> None:
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 16, 256).contiguous()
    for image in (levels, levels / 255, levels.double() / 255):
        assert math.isinf(score(image, levels, "y-prenet").psnr.item())


def test_equal_images_are_infinitely_good() -> None:
    image = torch.randint(256, (3, 16, 16), dtype=torch.uint8)
    for convention in CONVENTIONS:
        result = score(image, image, convention)
        assert math.isinf(result.psnr.item())
        assert result.ssim.item() == pytest.approx(1)


@pytest.mark.parametrize("convention", ["y", "y-float", "rgb"])
def test_out_of_range_is_clamped_then_rounded(convention: Convention) -> None:
    clean = torch.full((3, 16, 16), 1.0)
    assert math.isinf(score(clean + 0.3, clean, convention).psnr.item())
    assert math.isinf(score(clean - 0.4 / 255, clean, convention).psnr.item())


def test_rgb_jdnet_clips_the_psnr_and_not_the_ssim() -> None:
    derained, clean = released_pair()
    clipped = score(derained.clamp(0, 1), clean, "rgb-jdnet")
    unclipped = score(derained, clean, "rgb-jdnet")
    assert clipped.psnr.item() == unclipped.psnr.item()
    expected = RELEASED["official_SSIM_torch_if_pred_were_clipped_float64"]
    assert clipped.ssim.item() == pytest.approx(expected, abs=2e-8)
    assert clipped.ssim.item() > unclipped.ssim.item() + 1e-3


def test_images_smaller_than_the_window() -> None:
    a, b = torch.rand(3, 8, 40), torch.rand(3, 8, 40)
    assert score(a, b, "rgb-jdnet").ssim.item() <= 1
    for convention in CONVENTIONS[:3]:
        with pytest.raises(ValueError, match=r"at least 11x11 pixels, got 8x40"):
            score(a, b, convention)


def test_errors() -> None:
    a = torch.rand(3, 16, 16)
    with pytest.raises(ValueError, match=r"same shape, got \(3, 16, 16\) and \(3, 16, 17\)"):
        score(a, torch.rand(3, 16, 17), "y")
    with pytest.raises(ValueError, match=r"expected uint8 or floats in \[0, 1\], got torch.int64"):
        score((a * 255).long(), (a * 255).long(), "y")
    with pytest.raises(ValueError, match="no convention 'psnr'"):
        score(a, a, "psnr")  # type: ignore[arg-type]


def test_ssim_gradient() -> None:
    torch.manual_seed(0)
    a = torch.rand(1, 2, 12, 13, dtype=torch.float64, requires_grad=True)
    b = torch.rand(1, 2, 12, 13, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ssim_map(x, b, 1, "zero").mean(), a)


# --- inside a mask ------------------------------------------------------------------------------


def masked_pair() -> tuple[Tensor, Tensor, Tensor]:
    """Two images and a mask with holes, large enough for y-float to halve them."""
    noisy, clean = (x[:, :400, :420] for x in golden_pair("coffee-20"))
    mask = torch.ones(clean.shape[1:], dtype=torch.bool)
    mask[30:60, 40:90] = mask[200, 300] = mask[:, 400:] = False
    return noisy, clean, mask


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_mask_of_everything_changes_nothing(convention: Convention) -> None:
    noisy, clean, mask = masked_pair()
    whole, masked = (score(noisy, clean, convention, m) for m in (None, torch.ones_like(mask)))
    assert masked.psnr.item() == pytest.approx(whole.psnr.item(), abs=1e-10)
    assert masked.ssim.item() == pytest.approx(whole.ssim.item(), abs=1e-10)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_nothing_outside_a_mask_counts(convention: Convention) -> None:
    noisy, clean, mask = masked_pair()
    before = score(noisy, clean, convention, mask)
    after = score(torch.where(mask, noisy, 255 - clean), clean, convention, mask)
    assert after.psnr.item() == before.psnr.item()
    assert after.ssim.item() == pytest.approx(before.ssim.item(), abs=1e-12)
    assert before.psnr.item() != score(noisy, clean, convention).psnr.item()


def test_rgb_inside_a_mask_by_numpy_and_scikit_image() -> None:
    """PSNR over the pixels, SSIM over the windows of 11x11 pixels that the mask holds."""
    noisy, clean, mask = masked_pair()
    a, b = (x.permute(1, 2, 0).numpy() for x in (noisy, clean))
    known = mask.numpy()
    result = score(noisy, clean, "rgb", mask)
    error = np.mean((a[known].astype(float) - b[known]) ** 2)
    assert result.psnr.item() == pytest.approx(10 * math.log10(255**2 / error), abs=1e-10)
    _, full = skimage.metrics.structural_similarity(
        a,
        b,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    windows = np.lib.stride_tricks.sliding_window_view(known, (11, 11)).all(axis=(2, 3))
    expected = full[5:-5, 5:-5][windows].mean()
    assert result.ssim.item() == pytest.approx(expected, abs=1e-10)


def test_a_mask_without_a_window_has_no_ssim() -> None:
    noisy, clean, mask = masked_pair()
    dots = torch.zeros_like(mask)
    dots[::10, ::10] = True
    result = score(noisy, clean, "rgb", dots)
    assert math.isfinite(result.psnr.item())
    assert math.isnan(result.ssim.item())
    for wrong in (torch.zeros_like(mask), mask[:-1]):
        with pytest.raises(ValueError, match="expected a mask of"):
            score(noisy, clean, "rgb", wrong)
