"""Loss and gradient norm of the steps, and the check that they are finite."""

import math
from pathlib import Path

import torch
from torch import Tensor

from utils import ranks
from utils.errors import UserError


class Meter:
    """Collects the values of each step on the device, because reading them waits for a GPU.

    Args:
        folder: folder of the run, for the error message.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pending: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Tensor, norm: Tensor, stop: bool) -> None:
        """Add a step: its loss, its gradient norm, and whether this process wants to stop.

        The loss is averaged over the ranks.
        """
        values = ranks.mean(torch.stack([loss, torch.full_like(loss, float(stop))]))
        self._pending.append((step, torch.cat([values, norm[None]])))

    def read(self) -> tuple[float, float, bool]:
        """Return loss and norm of the last step, and whether any rank wants to stop.

        Raises:
            UserError: a value of any step since the last reading is not finite.
        """
        rows = torch.stack([values for _, values in self._pending]).tolist()
        for (step, _), (loss, _, norm) in zip(self._pending, rows, strict=True):
            if not math.isfinite(loss + norm):
                raise UserError(self._explosion(step, loss, norm))
        self._pending.clear()
        loss, stop, norm = rows[-1]
        return loss, norm, stop > 0

    def _explosion(self, step: int, loss: float, norm: float) -> str:
        latest = self._folder / "latest.pt"
        kept = f"the last good state is {latest}" if latest.exists() else "nothing was saved yet"
        return (
            f"loss {loss:g} with gradient norm {norm:g} at step {step}: {kept}; start a new --run "
            "with a lower --lr or --clip"
        )
