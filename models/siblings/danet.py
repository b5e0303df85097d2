"""DANet: image deraining via dynamic association learning (IJCAI 2022).

`RainNet` estimates the rain layer at half size; `DetailNet` restores the resulting background to
full size. Only separable convolutions have a bias.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.networks import DANetConfig
from models.network import Network
from models.siblings.blocks import SqueezeExcitation

MULTIPLE = 16  # of H and W: four halvings, one to half size and three in the encoder


def conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def resize(x: Tensor, factor: float) -> Tensor:
    """[B, C, H, W] -> [B, C, factor * H, factor * W], bilinear."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class SeparableConv(nn.Sequential):
    """A depthwise 3x3 convolution and a 1x1 convolution, both with bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depth = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
        self.point = nn.Conv2d(in_channels, out_channels, 1)


class Fusion(nn.Module):
    """Fuse two features, with a residual from the first.

    Args:
        channels: C.
        hidden: bottleneck of the channel attention.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = SeparableConv(2 * channels, channels)
        self.attention = SqueezeExcitation(channels, hidden, bias=False)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Two [B, C, H, W] -> [B, C, H, W]."""
        return self.attention(self.reduce(torch.cat([x, other], dim=1))) + x


class ProgressiveFusion(nn.Module):
    """Fuse several features pairwise, from the last to the first.

    Args:
        inputs: number of features.
        channels: C.
        hidden: bottleneck of the channel attention.
    """

    def __init__(self, inputs: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(
            SeparableConv(2 * channels, channels) for _ in range(inputs - 1)
        )
        self.attention = SqueezeExcitation(channels, hidden, bias=False)

    def forward(self, *features: Tensor) -> Tensor:
        """[B, C, H, W] each -> [B, C, H, W]."""
        *others, fused = features
        for x, reduce in zip(reversed(others), self.reduce, strict=True):
            fused = reduce(torch.cat([x, fused], dim=1))
        return fused + self.attention(fused)


class AttentionBlock(nn.Module):
    """Residual block with channel attention.

    Args:
        channels: C.
        hidden: bottleneck of the channel attention.
        slope: PReLU, shared by the whole sub-network.
    """

    def __init__(self, channels: int, hidden: int, slope: nn.PReLU) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels), slope, conv(channels, channels))
        self.attention = SqueezeExcitation(channels, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.attention(self.body(x)) + x


class SeparableBlock(nn.Module):
    """The encoder's block of separable convolutions; arguments as in `AttentionBlock`."""

    def __init__(self, channels: int, hidden: int, slope: nn.PReLU) -> None:
        super().__init__()
        self.body = nn.Sequential(
            SeparableConv(channels, channels), slope, SeparableConv(channels, channels)
        )
        self.attention = SqueezeExcitation(channels, hidden, bias=False)
        self.fuse = Fusion(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        # Released code: the residual of the fusion comes from the branch, not from the input.
        return self.fuse(self.attention(self.body(x)), x)


class EncoderLevel(nn.Module):
    """Refine the features at one scale; arguments as in `AttentionBlock`."""

    def __init__(self, channels: int, hidden: int, slope: nn.PReLU) -> None:
        super().__init__()
        self.block = SeparableBlock(channels, hidden, slope)
        self.fuse = Fusion(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.fuse(x, self.block(x))


class DecoderLevel(nn.Module):
    """Fuse the features of all levels, then refine them; arguments as in `AttentionBlock`."""

    def __init__(self, channels: int, hidden: int, slope: nn.PReLU) -> None:
        super().__init__()
        self.gather = ProgressiveFusion(4, channels, hidden)
        self.block = AttentionBlock(channels, hidden, slope)
        self.fuse = Fusion(channels, hidden)

    def forward(self, *features: Tensor) -> Tensor:
        """Four [B, C, H, W] -> [B, C, H, W]."""
        gathered = self.gather(*features)
        return self.fuse(gathered, self.block(gathered))


class Rescale(nn.Module):
    """Resize bilinearly and mix the channels.

    Args:
        channels: C.
        factor: scale factor of H and W.
    """

    def __init__(self, channels: int, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, factor * H, factor * W]."""
        return self.mix(resize(x, self.factor))


class Encoder(nn.Module):
    """Three levels, each at half the size of the one before; arguments as in `AttentionBlock`."""

    def __init__(self, channels: int, hidden: int, slope: nn.PReLU) -> None:
        super().__init__()
        self.down = nn.ModuleList(Rescale(channels, 1 / 2) for _ in range(3))
        self.levels = nn.ModuleList(EncoderLevel(channels, hidden, slope) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, C, H, W] -> three [B, C, H/2, W/2], [B, C, H/4, W/4], [B, C, H/8, W/8]."""
        features = []
        for down, level in zip(self.down, self.levels, strict=True):
            x = level(down(x))
            features.append(x)
        return tuple(features)


class Decoder(nn.Module):
    """Three levels, coarse to fine; each takes the features of all encoder levels.

    Arguments as in `AttentionBlock`.
    """

    def __init__(self, channels: int, hidden: int, slope: nn.PReLU) -> None:
        super().__init__()
        self.level1, self.level2, self.level3 = (
            DecoderLevel(channels, hidden, slope) for _ in range(3)
        )
        self.up1, self.up2, self.up3 = (Rescale(channels, 2) for _ in range(3))
        self.from1to2, self.from2to3 = (Rescale(channels, 1 / 2) for _ in range(2))
        self.from2to1, self.from3to2 = (Rescale(channels, 2) for _ in range(2))
        self.from1to3 = Rescale(channels, 1 / 4)
        self.from3to1 = Rescale(channels, 4)

    def forward(self, e1: Tensor, e2: Tensor, e3: Tensor) -> Tensor:
        """The encoder's three features -> [B, C, H, W]."""
        # Released code: level 3 takes e3 twice; the others take the decoded features first.
        d3 = self.up3(self.level3(e3, e3, self.from2to3(e2), self.from1to3(e1)))
        d2 = self.up2(self.level2(d3, e2, self.from1to2(e1), self.from3to2(e3)))
        return self.up1(self.level1(d2, e1, self.from2to1(e2), self.from3to1(e3)))


class Trunk(nn.Module):
    """The body of both sub-networks: residual blocks in parallel with an encoder-decoder.

    Args:
        blocks: number of residual blocks, without down-sampling.
        channels: C.
        hidden: bottleneck of the channel attention.
        slope: PReLU, shared by the whole sub-network.
    """

    def __init__(self, blocks: int, channels: int, hidden: int, slope: nn.PReLU) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(AttentionBlock(channels, hidden, slope) for _ in range(blocks)),
            conv(channels, channels),
        )
        self.encoder = Encoder(channels, hidden, slope)
        self.decoder = Decoder(channels, hidden, slope)
        self.combine = Fusion(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]; H, W multiples of 8."""
        return self.combine(self.blocks(x) + x, self.decoder(*self.encoder(x)))


class RainNet(nn.Module):
    """Estimate the rain layer at half size.

    Args:
        channels: C.
        hidden: bottleneck of the channel attention.
        blocks: see `Trunk`.
    """

    def __init__(self, channels: int, hidden: int, blocks: int) -> None:
        super().__init__()
        slope = nn.PReLU()
        self.enter_small = nn.Sequential(conv(3, channels), AttentionBlock(channels, hidden, slope))
        self.enter_quadrants = nn.Sequential(
            conv(4 * 3, channels), AttentionBlock(channels, hidden, slope)
        )
        self.merge = conv(2 * channels, channels)
        self.trunk = Trunk(blocks, channels, hidden, slope)
        self.tail = conv(channels, 3)

    def forward(self, rainy: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 3, H/2, W/2]."""
        top, bottom = rainy.chunk(2, dim=2)
        quadrants = [*top.chunk(2, dim=3), *bottom.chunk(2, dim=3)]
        features = [
            self.enter_small(resize(rainy, 1 / 2)),
            self.enter_quadrants(torch.cat(quadrants, dim=1)),
        ]
        return self.tail(self.trunk(self.merge(torch.cat(features, dim=1))))


class DetailNet(nn.Module):
    """Restore the full-size background from the rainy image, half-size rain and background.

    Args:
        channels: C.
        hidden: bottleneck of the channel attention.
        blocks: see `Trunk`.
    """

    def __init__(self, channels: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.enter_rainy = conv(3, channels, stride=2)
        self.enter_rain = conv(3, channels)
        self.enter_background = conv(3, channels)
        self.trunk = Trunk(blocks, channels, hidden, nn.PReLU())
        self.widen = conv(channels, 2 * channels)
        self.tail = conv(channels // 2, 3)

    def forward(self, rainy: Tensor, rain: Tensor, background: Tensor) -> Tensor:
        """[B, 3, H, W] and two [B, 3, H/2, W/2] -> [B, 3, H, W]."""
        features = self.enter_rainy(rainy)  # [B, C, H/2, W/2]
        mask = torch.sigmoid(self.enter_rain(rain))
        features = features * mask + features + self.enter_background(background)
        details: Tensor = self.tail(shuffle(self.widen(self.trunk(features))))
        return details + resize(background, 2)


def shuffle(x: Tensor) -> Tensor:
    """[B, 4 C, H, W] -> [B, C, 2 H, 2 W]: out[c, 2y + i, 2x + j] = x[4c + 2j + i, y, x].

    This is the released order; `F.pixel_shuffle` reads channel 4c + 2i + j instead.
    """
    split = x.unflatten(1, (-1, 2, 2))  # [B, C, 2, 2, H, W]
    return F.pixel_shuffle(split.transpose(2, 3).flatten(1, 3), 2)


class DANet(Network):
    """Remove the rain at half size, then restore the details at full size.

    Args:
        config: channels C, blocks and reduction; default: the released ones.

    Source: released code.
    """

    stride = MULTIPLE

    def __init__(self, config: DANetConfig | None = None) -> None:
        config = config or DANetConfig()
        super().__init__(config)
        hidden = config.channels // config.reduction
        self.rain = RainNet(config.channels, hidden, config.blocks)
        self.detail = DetailNet(config.channels, hidden, config.blocks)

    def stages(self, rainy: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> background at half size, rounded up, and at full size; not clamped.

        The target of the first is the ground truth, resized bilinearly (`training.losses.danet`).
        """
        h, w = rainy.shape[2:]
        padded = F.pad(rainy, [0, -w % MULTIPLE, 0, -h % MULTIPLE], mode="replicate")
        rain = self.rain(padded)
        background = resize(padded, 1 / 2) - rain
        clean = self.detail(padded, rain, background)
        return background[:, :, : (h + 1) // 2, : (w + 1) // 2], clean[:, :, :h, :w]
