"""RESCAN: recurrent squeeze-and-excitation context aggregation net (ECCV 2018)."""

import torch
from torch import Tensor, nn

from config.networks import RESCANConfig
from models.network import Network
from models.siblings.blocks import ConvGRU, ConvLSTM, ConvRNN, SqueezeExcitation, State

SQUEEZED = 6  # hidden units of every squeeze-and-excitation, for any number of channels


class ConvCell(nn.Module):
    """A dilated convolution with the interface of a cell; it ignores the state."""

    def __init__(
        self, in_channels: int, channels: int, dilation: int, activation: nn.Module
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=dilation, dilation=dilation)
        self.activation = activation

    def forward(self, x: Tensor, state: State | None = None) -> State:
        """[B, C_in, H, W] -> ([B, C, H, W],)."""
        return (self.activation(self.conv(x)),)


CELLS: dict[str, type[ConvCell | ConvRNN | ConvGRU | ConvLSTM]] = {
    "conv": ConvCell,
    "rnn": ConvRNN,
    "gru": ConvGRU,
    "lstm": ConvLSTM,
}


class RESCAN(Network):
    """Estimate the rain layer in stages; each takes the derained image of the previous stage.

    All stages share their weights, and the cells keep their states.

    Args:
        config: stages, channels C and the rest; default: the released ones.

    Source: released code; squeeze-and-excitation always on.
    """

    def __init__(self, config: RESCANConfig | None = None) -> None:
        config = config or RESCANConfig()
        super().__init__(config)
        self.repeats, self.frame, channels = config.stages, config.frame, config.channels

        def activation() -> nn.Module:
            return nn.Sequential(SqueezeExcitation(channels, SQUEEZED), nn.LeakyReLU(0.2))

        dilations = [1, *(2**i for i in range(config.depth - 3))]
        self.cells = nn.ModuleList(
            CELLS[config.cell](channels if i else 3, channels, dilation, activation())
            for i, dilation in enumerate(dilations)
        )
        self.tail = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            activation(),
            nn.Conv2d(channels, 3, 1),
        )

    def stages(self, rainy: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the derained image of every stage, each [B, 3, H, W]; not clamped."""
        states: list[State | None] = [None] * len(self.cells)
        derained: list[Tensor] = []
        x, rain = rainy, torch.zeros_like(rainy)
        for _ in range(self.repeats):
            for i, cell in enumerate(self.cells):
                states[i] = state = cell(x, states[i])
                x = state[0]
            estimate = self.tail(x)
            rain = estimate + rain.detach() if self.frame == "add" else estimate
            x = rainy - rain
            derained.append(x)
        return tuple(derained)
