"""The training losses."""

import pytest
import torch

from utils.losses import LOSSES
from utils.metrics import score


def test_negative_ssim_is_the_released_metric() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 20, 20) * 1.5, torch.rand(2, 3, 20, 20)
    expected = -score(a, b, "rgb-jdnet").ssim.mean().item()
    assert LOSSES["ssim"](a, b).item() == pytest.approx(expected, abs=1e-6)


def test_mae_and_mse_by_hand() -> None:
    a, b = torch.tensor([[[[0.0, 0.5]]]]), torch.tensor([[[[1.0, 0.0]]]])
    assert LOSSES["mae"](a, b).item() == pytest.approx(0.75)
    assert LOSSES["mse"](a, b).item() == pytest.approx(0.625)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_float32_under_autocast(name: str) -> None:
    a = torch.rand(1, 3, 16, 16, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[name](a, torch.rand(1, 3, 16, 16))
    assert loss.dtype == torch.float32
    loss.backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
