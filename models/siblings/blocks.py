"""Shared blocks: convolutional recurrent cells and squeeze-and-excitation.

A cell takes features x and its previous state (None on the first call), and returns the new state:
(h,), or (h, c) for the LSTM. h, after the activation, is also the output.
"""

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


class SqueezeExcitation(nn.Module):
    """Channel attention from global average pooling (SENet, CVPR 2018).

    Args:
        channels: C.
        hidden: width of the bottleneck.
        bias: whether the two linear layers have a bias.
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
    """The pre-activation W_x x + b_x + W_h h + b_h; without a state, the last two are omitted.

    Args:
        in_channels: channels of x.
        channels: channels of h and of the output.
        dilation: dilation of W_x; that of W_h is 1.
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
        in_channels: channels of x.
        channels: channels of h.
        dilation: dilation of the convolutions of x.
        activation: applied to h at the end.
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
    """Long short-term memory; arguments as in `ConvRNN`. The activation applies to h, not to c."""

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
            h = torch.sigmoid(self.output(x)) * c  # released code: tanh(c) only on later calls
        else:
            h, c = state
            i = torch.sigmoid(self.input(x, h))
            f = torch.sigmoid(self.forget(x, h))
            o = torch.sigmoid(self.output(x, h))
            c = f * c + i * torch.tanh(self.cell(x, h))
            h = o * torch.tanh(c)
        return self.activation(h), c
