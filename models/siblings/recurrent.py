"""Blocks that several networks share: convolutional recurrent cells, squeeze-and-excitation.

A cell takes the features x and the state its last call returned, None on the first one, and
returns the new state: (h,), or (h, c) in the LSTM. h is the output too, after the activation.
"""

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


class SqueezeExcitation(nn.Module):
    """Weigh the channels by what the whole image holds of each (SENet, CVPR 2018).

    Args:
        channels: C.
        hidden: width of the bottleneck.
        bias: whether the two linear maps add one.
    """

    def __init__(self, channels: int, hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden, bias)
        self.excite = nn.Linear(hidden, channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        average = x.mean(dim=(2, 3))  # [B, C]
        weight = torch.sigmoid(self.excite(torch.relu(self.squeeze(average))))
        return x * weight[:, :, None, None]


class Gate(nn.Module):
    """A cell's sum W_x x + W_h h + b; without a state W_h h and its bias are left out.

    Args:
        in_channels: of x.
        channels: of h and the sum.
        dilation: of W_x; W_h has none.
    """

    def __init__(self, in_channels: int, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.from_input = nn.Conv2d(in_channels, channels, 3, padding=dilation, dilation=dilation)
        self.from_state = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """[B, C_in, H, W], [B, C, H, W] -> [B, C, H, W]."""
        out: Tensor = self.from_input(x)
        return out if h is None else out + self.from_state(h)


class ConvRNN(nn.Module):
    """Plain recurrent cell.

    Args:
        in_channels: of x.
        channels: of h.
        dilation: of the convolutions of x.
        activation: what closes the cell.
    """

    def __init__(
        self, in_channels: int, channels: int, dilation: int, activation: nn.Module
    ) -> None:
        super().__init__()
        self.mix = Gate(in_channels, channels, dilation)
        self.activation = activation

    def forward(self, x: Tensor, state: State | None = None) -> State:
        """[B, C_in, H, W], state -> state, each of its tensors [B, C, H, W]."""
        h = torch.tanh(self.mix(x, *(state or ())))
        return (self.activation(h),)


class ConvGRU(nn.Module):
    """Gated recurrent unit; arguments as in `ConvRNN`. The state holds h after the activation."""

    def __init__(
        self, in_channels: int, channels: int, dilation: int, activation: nn.Module
    ) -> None:
        super().__init__()
        self.update = Gate(in_channels, channels, dilation)
        self.reset = Gate(in_channels, channels, dilation)
        self.candidate = Gate(in_channels, channels, dilation)
        self.activation = activation

    def forward(self, x: Tensor, state: State | None = None) -> State:
        """[B, C_in, H, W], state -> state, each of its tensors [B, C, H, W]."""
        if state is None:
            h = torch.sigmoid(self.update(x)) * torch.tanh(self.candidate(x))
        else:
            (h,) = state
            z = torch.sigmoid(self.update(x, h))
            r = torch.sigmoid(self.reset(x, h))
            n = torch.tanh(self.candidate(x, r * h))
            h = (1 - z) * h + z * n
        return (self.activation(h),)


class ConvLSTM(nn.Module):
    """Long short-term memory; arguments as in `ConvRNN`. The activation closes h, never c."""

    def __init__(
        self, in_channels: int, channels: int, dilation: int, activation: nn.Module
    ) -> None:
        super().__init__()
        self.input = Gate(in_channels, channels, dilation)
        self.forget = Gate(in_channels, channels, dilation)
        self.output = Gate(in_channels, channels, dilation)
        self.cell = Gate(in_channels, channels, dilation)
        self.activation = activation

    def forward(self, x: Tensor, state: State | None = None) -> State:
        """[B, C_in, H, W], state -> state, each of its tensors [B, C, H, W]."""
        if state is None:
            c = torch.sigmoid(self.input(x)) * torch.tanh(self.cell(x))
            h = (
                torch.sigmoid(self.output(x)) * c
            )  # released code: no tanh here, only on later calls
        else:
            h, c = state
            i = torch.sigmoid(self.input(x, h))
            f = torch.sigmoid(self.forget(x, h))
            o = torch.sigmoid(self.output(x, h))
            c = f * c + i * torch.tanh(self.cell(x, h))
            h = o * torch.tanh(c)
        return self.activation(h), c
