"""The training losses."""

import numpy as np
import pytest
import torch

from training.losses import LOSSES
from utils.metrics import score


def test_negative_ssim_equals_the_released_metric() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 20, 20) * 1.5, torch.rand(2, 3, 20, 20)
    expected = -score(a, b, "rgb-jdnet").ssim.mean().item()
    assert LOSSES["ssim"]([a], b).item() == pytest.approx(expected, abs=1e-6)


def test_mae_and_mse_by_hand() -> None:
    a, b = torch.tensor([[[[0.0, 0.5]]]]), torch.tensor([[[[1.0, 0.0]]]])
    assert LOSSES["mae"]([a], b).item() == pytest.approx(0.75)
    assert LOSSES["mse"]([a], b).item() == pytest.approx(0.625)


def test_rescan_sums_its_stages() -> None:
    clean = torch.zeros(1, 3, 8, 8)
    stages = [torch.full_like(clean, value) for value in (1.0, 0.5, 0.1)]
    assert LOSSES["mse-stages"](stages, clean).item() == pytest.approx(1 + 0.25 + 0.01)


def test_danet_longhand() -> None:
    """The edge term is computed with explicit loops over the pixels."""
    torch.manual_seed(0)
    full, clean = (torch.rand(1, 1, 12, 12, dtype=torch.float64).float() for _ in range(2))
    half = torch.rand(1, 1, 6, 6)

    def blur(plane: np.ndarray) -> np.ndarray:
        taps = [0.05, 0.25, 0.4, 0.25, 0.05]
        out = np.zeros_like(plane)
        for y, x in np.ndindex(*plane.shape):
            for dy, dx in np.ndindex(5, 5):
                inside = [
                    min(max(v, 0), n - 1)
                    for v, n in zip((y + dy - 2, x + dx - 2), plane.shape, strict=True)
                ]
                out[y, x] += taps[dy] * taps[dx] * plane[inside[0], inside[1]]
        return out

    def laplacian(plane: np.ndarray) -> np.ndarray:
        thin = np.zeros_like(plane)
        thin[::2, ::2] = 4 * blur(plane)[::2, ::2]
        return np.asarray(plane - blur(thin))

    def charbonnier(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean(np.sqrt((a - b) ** 2 + 1e-6)))

    f, c, h = (x[0, 0].double().numpy() for x in (full, clean, half))
    c_half = c.reshape(6, 2, 6, 2).mean(axis=(1, 3))
    pixels = charbonnier(f, c) + 0.8 * charbonnier(h, c_half)
    edges = charbonnier(laplacian(f), laplacian(c)) + 0.8 * charbonnier(
        laplacian(h), laplacian(c_half)
    )
    expected = 0.3 * pixels + 0.2 * edges + 0.15 * LOSSES["ssim"]([full], clean).item()
    assert LOSSES["danet"]([half, full], clean).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_float32_under_autocast(name: str) -> None:
    stages = [torch.rand(1, 3, n, n, dtype=torch.bfloat16, requires_grad=True) for n in (8, 16)]
    stages = stages if name == "danet" else [stages[1], stages[1]]
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[name](stages, torch.rand(1, 3, 16, 16))
    assert loss.dtype == torch.float32
    loss.backward()
    assert stages[-1].grad is not None
    assert stages[-1].grad.isfinite().all()
