"""PReNet: progressive image deraining networks, a better and simpler baseline (CVPR 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.networks import PReNetConfig
from models.network import Network
from models.siblings.blocks import State

BLOCKS = 5  # residual blocks in a stage


class LSTM(nn.Module):
    """Convolutional LSTM; each gate is one convolution of the concatenated features and state.

    Args:
        channels: C of the features and of the state.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input, self.forget, self.cell, self.output = (
            nn.Conv2d(2 * channels, channels, 3, padding=1) for _ in range(4)
        )

    def forward(self, x: Tensor, state: State | None = None) -> State:
        """[B, C, H, W], (h, c) -> (h, c), each [B, C, H, W]; a state of None is zero."""
        h, c = state or (torch.zeros_like(x), torch.zeros_like(x))
        xh = torch.cat([x, h], dim=1)  # [B, 2C, H, W]
        i = torch.sigmoid(self.input(xh))
        f = torch.sigmoid(self.forget(xh))
        g = torch.tanh(self.cell(xh))
        o = torch.sigmoid(self.output(xh))
        c = f * c + i * g
        return o * torch.tanh(c), c


class GRU(nn.Module):
    """Convolutional GRU; each gate is one convolution of the concatenated features and state.

    Args:
        channels: C of the features and of the state.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.update, self.reset, self.candidate = (
            nn.Conv2d(2 * channels, channels, 3, padding=1) for _ in range(3)
        )

    def forward(self, x: Tensor, state: State | None = None) -> State:
        """[B, C, H, W], (h,) -> (h,), each [B, C, H, W]; a state of None is zero."""
        (h,) = state or (torch.zeros_like(x),)
        xh = torch.cat([x, h], dim=1)  # [B, 2C, H, W]
        z = torch.sigmoid(self.update(xh))
        r = torch.sigmoid(self.reset(xh))
        n = torch.tanh(self.candidate(torch.cat([r * h, x], dim=1)))  # released code: state first
        return ((1 - z) * h + z * n,)


class PReNet(Network):
    """Derain in stages; each takes the rainy image and the result of the previous stage.

    The networks of the paper and of the released code, with 6 stages unless noted:

        PReNet, PReNet_r     the defaults; shared_blocks=True
        PRN, PRN_r           recurrence="none"; and shared_blocks=True
        PReNet_LSTM          global_residual=False
        PReNet_GRU           recurrence="gru", global_residual=False
        PReNet_x             rainy_input=False, global_residual=False
        Generator_lstm       stages=4, recurrence_last=True, global_residual=False; photographs

    PReNet, PReNet_LSTM and Generator_lstm have the same tensors: the weights of one load into
    another without an error, but derain badly.

    Args:
        config: stages T, channels C and the rest; default: PReNet.
    """

    def __init__(self, config: PReNetConfig | None = None) -> None:
        config = config or PReNetConfig()
        super().__init__(config)
        channels, recurrence = config.channels, config.recurrence
        self.repeats, self.global_residual = config.stages, config.global_residual
        self.rainy_input, self.recurrence_last = config.rainy_input, config.recurrence_last
        layers: dict[str, type[LSTM | GRU]] = {"lstm": LSTM, "gru": GRU}
        self.head = nn.Conv2d(6 if config.rainy_input else 3, channels, 3, padding=1)
        self.recurrent = layers[recurrence](channels) if recurrence != "none" else None
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.ReLU(),
            )
            for _ in range(1 if config.shared_blocks else BLOCKS)
        )
        self.tail = nn.Conv2d(channels, 3, 3, padding=1)

    def stages(self, rainy: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the derained image of every stage, each [B, 3, H, W]; not clamped."""
        derained: list[Tensor] = []
        state: State | None = None
        x = rainy
        for _ in range(self.repeats):
            u = F.relu(self.head(torch.cat([rainy, x], dim=1) if self.rainy_input else x))
            if self.recurrence_last:
                u = self._refine(u)
            if self.recurrent is not None:
                state = self.recurrent(u, state)
                u = state[0]
            if not self.recurrence_last:
                u = self._refine(u)
            x = self.tail(u) + rainy if self.global_residual else self.tail(u)
            derained.append(x)
        return tuple(derained)

    def _refine(self, u: Tensor) -> Tensor:
        for i in range(BLOCKS):
            u = F.relu(u + self.blocks[i % len(self.blocks)](u))
        return u
