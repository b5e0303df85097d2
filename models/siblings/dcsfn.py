"""DCSFN: deep cross-scale fusion network for single image rain removal (ACM MM 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.networks import DCSFNConfig
from models.network import Network
from models.siblings.blocks import ConvGRU, ConvRNN

SMALLEST = 32  # minimum H and W: the quarter-size encoder pools by another factor of 8
SCALES = (1, 2, 4)  # down-sampling factors of the encoders and decoders
INNER_SCALES = (8, 4, 2, 1)  # down-sampling factors inside a block, coarse to fine
LAYERS = 4  # convolutions per scale inside a block
CELLS: dict[str, type[ConvRNN | ConvGRU]] = {"rnn": ConvRNN, "gru": ConvGRU}


def conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """A size-preserving convolution and a LeakyReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2), nn.LeakyReLU(0.2)
    )


def resize(x: Tensor, like: Tensor) -> Tensor:
    """[B, C, *, *] -> [B, C, H, W], the size of `like`, by nearest-neighbour interpolation."""
    return F.interpolate(x, like.shape[2:])


class InnerScaleConnection(nn.Module):
    """Convolve the features at four scales, coarse to fine; each scale feeds the next finer one.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stacks = nn.ModuleList(
            nn.Sequential(*(conv(channels, channels, 3) for _ in range(LAYERS)))
            for _ in INNER_SCALES
        )
        self.connect = nn.ModuleList(conv(2 * channels, channels, 1) for _ in INNER_SCALES[1:])
        self.fuse = conv(len(INNER_SCALES) * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]; H, W >= 8."""
        coarsest, *finer = INNER_SCALES
        first, *others = self.stacks
        scales = [first(F.max_pool2d(x, coarsest))]  # [B, C, H/8, W/8]
        for scale, connect, stack in zip(finer, self.connect, others, strict=True):
            pooled = F.max_pool2d(x, scale)
            scales.append(stack(connect(torch.cat([pooled, resize(scales[-1], pooled)], dim=1))))
        finest_first = [resize(s, x) for s in reversed(scales)]
        return x + self.fuse(torch.cat(finest_first, dim=1))


class DenseChain(nn.Module):
    """Densely connected blocks: each takes a 1x1 fusion of the input and all previous blocks.

    Used as encoder and as decoder. The decoder adds the encoder's block outputs to the inputs of
    its blocks, in the same order.

    Args:
        units: number of blocks.
        channels: C.
    """

    def __init__(self, units: int, channels: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(InnerScaleConnection(channels) for _ in range(units))
        self.dense = nn.ModuleList(conv((i + 2) * channels, channels, 1) for i in range(units))

    def forward(self, x: Tensor, skips: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """[B, C, H, W] -> [B, C, H, W] and the output of every block, each the same shape."""
        features = [x]
        for i, (unit, dense) in enumerate(zip(self.units, self.dense, strict=True)):
            features.append(unit(x if skips is None else x + skips[i]))
            x = dense(torch.cat(features, dim=1))
        return x, features[1:]


class DCSFN(Network):
    """Encode at three scales, exchange information between the scales, and decode the rain layer.

    The recurrence is across scales: two passes, coarse to fine and back, call each of their three
    cells once. The state of a cell is the fused output of the cells before it in the same pass.
    The released LSTM is not supported: it overwrites the states of a pass with resized ones while
    it still needs the originals.

    Args:
        config: units, channels C and cell; default: the released ones.

    Source: released code.
    """

    stride = SCALES[-1] * INNER_SCALES[0]

    def __init__(self, config: DCSFNConfig | None = None) -> None:
        config = config or DCSFNConfig()
        super().__init__(config)
        units, channels, cell = config.units, config.channels, config.cell
        self.head = conv(3, channels, 3)
        # Each of these four lists has one entry per scale, in the order of SCALES.
        self.encoders = nn.ModuleList(DenseChain(units, channels) for _ in SCALES)
        self.decoders = nn.ModuleList(DenseChain(units, channels) for _ in SCALES)
        self.coarse_to_fine, self.fine_to_coarse = (
            nn.ModuleList(CELLS[cell](channels, channels, 1, nn.LeakyReLU(0.2)) for _ in SCALES)
            for _ in range(2)
        )
        self.fuse_fine, self.fuse_coarse = (conv(2 * channels, channels, 1) for _ in range(2))
        # Only the LSTM's second state needs these; kept because released checkpoints contain them.
        self.unused_fine, self.unused_coarse = (conv(2 * channels, channels, 1) for _ in range(2))
        self.merge = nn.Sequential(
            nn.Conv2d(len(SCALES) * channels, 3, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(3, 3, 3, padding=1),
        )

    def forward(self, rainy: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 3, H, W], RGB in [0, 1]; the output is not clamped.

        Args:
            rainy: images of any size from 1x1 up.
        """
        h, w = rainy.shape[2:]
        if min(h, w) < SMALLEST:
            pad = [0, max(0, SMALLEST - w), 0, max(0, SMALLEST - h)]
            return self.forward(F.pad(rainy, pad, mode="replicate"))[:, :, :h, :w]

        x = self.head(rainy)
        pyramid = [F.max_pool2d(x, scale) for scale in SCALES]
        encoded = [encode(x) for encode, x in zip(self.encoders, pyramid, strict=True)]
        (e1, skips1), (e2, skips2), (e4, skips4) = encoded

        cell1, cell2, cell4 = self.coarse_to_fine
        (r4,) = cell4(e4)
        (r2,) = cell2(e2, (resize(r4, e2),))
        coarser = torch.cat([resize(r2, e1), resize(r4, e1)], dim=1)
        (r1,) = cell1(e1, (self.fuse_fine(coarser),))

        cell1, cell2, cell4 = self.fine_to_coarse
        (q1,) = cell1(r1)
        (q2,) = cell2(r2, (resize(q1, r2),))
        finer = torch.cat([resize(q1, r4), resize(q2, r4)], dim=1)
        (q4,) = cell4(r4, (self.fuse_coarse(finer),))

        decode1, decode2, decode4 = self.decoders
        d1, d2, d4 = decode1(q1, skips1)[0], decode2(q2, skips2)[0], decode4(q4, skips4)[0]
        rain = self.merge(torch.cat([d1, resize(d2, d1), resize(d4, d1)], dim=1))
        return rainy - rain
