"""JDNet, Eq. 1-14 of the paper written out without optimizations.

A reference to read beside the paper, and a baseline for tests and benchmarks. The weights are those
of `JDNet`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.jdnet.activation import SLOPE
from models.jdnet.network import JDNet, JointUnit
from models.jdnet.ops.reference import differences, neighbours
from models.jdnet.scale_aggregation import ScaleAggregation
from models.jdnet.self_attention import SelfAttention, image_coordinates, patch_coordinates
from models.jdnet.self_calibration import SelfCalibratedConv
from models.network import Window

# Eq. 2-4 of a module for phi, psi, beta and the position features.
Attention = Callable[[SelfAttention, Tensor, Tensor, Tensor, Tensor], Tensor]


class PlainJDNet(JDNet):
    """JDNet without optimizations; config as in `JDNet`, but H and W at least `smallest`."""

    def forward(self, rainy: Tensor, window: Window | None = None) -> Tensor:
        """[B, 3, H, W] -> [B, 3, H, W]; see `JDNet.forward`."""
        window = window or (0, 0, *rainy.shape[2:])
        image = self.position == "image"
        place = image_coordinates(rainy, window) if image else patch_coordinates(rainy)
        return derain(self, rainy, place, weigh_neighbours)


def derain(m: JDNet, rainy: Tensor, coordinates: Tensor, weigh: Attention) -> Tensor:
    """Section 3.1, Eq. 1: [B, 3, H, W] -> [B, 3, H, W].

    Args:
        m: a JDNet, for its weights.
        rainy: images, H and W at least `smallest`.
        coordinates: position of every pixel, [1, 2, H, W].
        weigh: computes Eq. 2-4, as `weigh_neighbours` does.
    """
    x = _leaky_relu(m.head(rainy))
    features = [x]
    for unit, dense in zip(m.units, m.dense, strict=True):
        assert isinstance(unit, JointUnit)
        if unit.attention is not None:
            x = attend(unit.attention, x, coordinates, weigh)
        x = aggregate(unit.aggregation, x) + x  # released code: the residual
        if unit.calibration is not None:
            x = calibrate(unit.calibration, x)
        features.append(x)
        x = _leaky_relu(dense(torch.cat(features, dim=1)))
    return rainy - _leaky_relu(m.tail(x))  # Eq. 1


def attend(m: SelfAttention, x: Tensor, coordinates: Tensor, weigh: Attention) -> Tensor:
    """Self-attention, section 3.2, Eq. 2-4: [B, C, H, W] -> [B, C, H, W]."""
    features = _leaky_relu(m.norm_in(x))
    phi, psi, beta = m.phi(features), m.psi(features), m.beta(features)
    y = weigh(m, phi, psi, beta, m.position(coordinates))  # Eq. 2-4
    return x + m.expand(_leaky_relu(m.norm_out(y)))


def weigh_neighbours(
    m: SelfAttention, phi: Tensor, psi: Tensor, beta: Tensor, position: Tensor
) -> Tensor:
    """Eq. 2-4: the weighted sum of the values beta over each footprint, [B, V, H, W]."""
    delta = differences(phi, psi, position, m.footprint)  # Eq. 4
    gamma = m.gamma2(m.gamma1(_leaky_relu(delta)))  # [B, 1, K*K, H*W]
    alpha = gamma.softmax(dim=2)  # Eq. 3
    return (alpha * neighbours(beta, m.footprint)).sum(dim=2).view_as(beta)  # Eq. 2


def aggregate(m: ScaleAggregation, x: Tensor) -> Tensor:
    """Scale aggregation, section 3.3, Eq. 5-9: [B, C, H, W] -> [B, C, H, W]."""
    pyramid, scale = [x], x
    for down, block in zip(m.down, m.blocks, strict=True):
        assert isinstance(block, nn.Sequential)
        scale = _leaky_relu(down(scale))  # Eq. 5, 7
        scale = scale + block[2](_leaky_relu(block[0](scale)))  # Eq. 6, 8
        pyramid.append(F.interpolate(scale, x.shape[2:]))
    return _leaky_relu(m.fuse(torch.cat(pyramid, dim=1)))  # Eq. 9


def calibrate(m: SelfCalibratedConv, z: Tensor) -> Tensor:
    """Self-calibrated convolution, section 3.4, Eq. 10-14: [B, C, H, W] -> [B, C, H, W]."""
    x1, x2 = _leaky_relu(m.split1(z)), _leaky_relu(m.split2(z))
    t1 = F.avg_pool2d(x1, m.pooling)  # Eq. 10
    context = F.interpolate(m.k2(t1), x1.shape[2:])  # Eq. 11
    y1 = m.k3(x1) * torch.sigmoid(x1 + context)  # Eq. 12
    y1 = _leaky_relu(m.k4(y1))  # Eq. 13
    y2 = _leaky_relu(m.k1(x2))  # Eq. 14
    return _leaky_relu(m.merge(torch.cat([y2, y1], dim=1)) + z)


def _leaky_relu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)
