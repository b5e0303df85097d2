"""Scale-aggregation module (JDNet paper, section 3.3, Eq. 5-9 and Fig. 4)."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.jdnet.activation import SLOPE, leaky_relu
from models.jdnet.ops import fuse_scales
from models.jdnet.pointwise import pointwise


class ScaleAggregation(nn.Module):
    """Fuse features across a pyramid of n + 1 scales.

    Released code: Eq. 9 is followed by a LeakyReLU and a residual, which the paper does not show.

    Args:
        channels: C.
        scales: n, the number of halvings.
    """

    def __init__(self, channels: int = 32, scales: int = 4) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(scales)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.LeakyReLU(SLOPE, inplace=True),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(scales)
        )
        self.fuse = nn.Conv2d((scales + 1) * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]; any H, W >= 1. Each scale halves the last, rounding up.

        Adds the residual x, as the released code does after the aggregation.
        """
        # Eq. 9 fuses Concat[X0, Up(X1), ..., Up(Xn)] with one 1x1 convolution. A 1x1 convolution
        # and nearest up-sampling commute. So each scale is convolved with its slice of the weight
        # before up-sampling, and the results are summed: no concatenation is needed.
        first, *others = (
            # The strides of a view would be mistaken for channels-last and cost a copy.
            part.contiguous()
            for part in self.fuse.weight.split(x.shape[1], dim=1)
        )
        coarse, scale = [], x
        for down, block, weight in zip(self.down, self.blocks, others, strict=True):
            scale = leaky_relu(down(scale))  # Eq. 5, 7: [B, C, H/2, W/2]
            scale = block(scale).add_(scale)  # Eq. 6, 8
            coarse.append(F.conv2d(scale, weight))
        return fuse_scales(pointwise(x, first, self.fuse.bias), coarse, x)  # Eq. 9
