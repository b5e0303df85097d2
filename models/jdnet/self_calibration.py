"""Self-calibrated convolution (JDNet paper, 3.4, Eq. 10-14 and Fig. 5; SCNet, CVPR 2020)."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.jdnet.activation import leaky_relu
from models.jdnet.pointwise import pointwise


class SelfCalibratedConv(nn.Module):
    """Convolve two halves of the features, one of them gated by its own low-resolution context.

    Names follow the paper: X1 is calibrated, X2 is not, and K1 to K4 are the four filters. The
    LeakyReLUs, the final 1x1 convolution and the residual are only in the released code.

    Args:
        channels: C, even.
        pooling: r, the side of the pooling window of Eq. 10; H and W must not be smaller.
    """

    def __init__(self, channels: int = 32, pooling: int = 4) -> None:
        super().__init__()
        half = channels // 2
        self.pooling = pooling
        self.split1 = nn.Conv2d(channels, half, 1)
        self.split2 = nn.Conv2d(channels, half, 1)
        self.k1 = nn.Conv2d(half, half, 3, padding=1)
        self.k2 = nn.Conv2d(half, half, 3, padding=1)
        self.k3 = nn.Conv2d(half, half, 3, padding=1)
        self.k4 = nn.Conv2d(half, half, 3, padding=1)
        self.merge = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        x1 = leaky_relu(pointwise(x, self.split1.weight, self.split1.bias))  # [B, C/2, H, W]
        x2 = leaky_relu(pointwise(x, self.split2.weight, self.split2.bias))
        t1 = F.avg_pool2d(x1, self.pooling)  # Eq. 10: [B, C/2, H/r, W/r]
        context = F.interpolate(self.k2(t1), x1.shape[2:])  # Eq. 11, nearest
        y1 = self.k3(x1) * context.add_(x1).sigmoid_()  # Eq. 12
        y1 = leaky_relu(self.k4(y1))  # Eq. 13
        y2 = leaky_relu(self.k1(x2))  # Eq. 14
        # Not cat: its backward returns strided slices, which are very slow in bfloat16.
        merge2, merge1 = (part.contiguous() for part in self.merge.weight.chunk(2, dim=1))
        merged = pointwise(y2, merge2, self.merge.bias).add_(pointwise(y1, merge1))
        return leaky_relu(merged.add_(x))
