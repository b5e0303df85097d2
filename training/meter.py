"""Loss and gradient norm of the steps, and the check that they are finite."""

import math
from pathlib import Path

import torch
from torch import Tensor

from utils import ranks
from utils.errors import UserError


class Meter:
    """Keeps the values of each step on the device, because reading them waits for a GPU.

    Args:
        folder: folder of the run, for the error message.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unread: list[Tensor] = []

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Add the loss and the gradient norm of a step, scalars."""
        self.unread.append(torch.stack([loss, norm]))

    def read(self, done: int) -> tuple[float, float]:
        """Loss and gradient norm of the last of `done` steps, averaged over the ranks.

        Raises:
            UserError: a value of any step since the last reading is not finite.
        """
        rows = ranks.mean(torch.stack(self.unread)).tolist()
        self.unread.clear()
        for step, (loss, norm) in enumerate(rows, done - len(rows)):
            if not math.isfinite(loss + norm):
                latest = self.folder / "latest.pt"
                raise UserError(
                    f"loss {loss:g} with gradient norm {norm:g} at step {step}: "
                    + (f"the last good state is {latest}" if latest.exists() else "no state saved")
                    + "; start a new --run with a lower --lr or --clip"
                )
        return loss, norm
