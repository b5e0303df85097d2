"""Dense connections: 1x1 convolutions over all preceding features (JDNet paper, 3.1 and Fig. 2).

Fusion i is conv_i(cat(features[: i + 2])). A direct implementation makes 32 concatenations of
growing size and up to 32 partial gradients for every feature. They take most of the memory and much
of the time of a training step. Here each feature is written once, into buffers that hold the
concatenation.
The backward stores the gradients of the fusions the same way, and computes the gradient of each
feature as a single convolution over them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Tensors per buffer. Small buffers need little zero padding, and convolutions of 64 channels (two
# tensors) are the fastest. In half precision every buffer adds one rounding of the sum: over 32
# units this is harmless with two tensors per buffer, but not with one.
GROUP = 2


class FeatureBuffers:
    """A concatenation of [B, C, H, W] tensors, stored in channels-last buffers of `GROUP` each.

    Args:
        length: total number of tensors.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.buffers: list[Tensor] = []

    def put(self, place: int, x: Tensor) -> None:
        """Store a tensor at index `place`: the next free index, or one to overwrite."""
        # FLOP counting on the meta device must not count the zero padding.
        group = 1 if x.is_meta else GROUP
        channels, (buffer, column) = x.shape[1], divmod(place, group)
        if buffer == len(self.buffers):
            size = min(group, self.length - place) * channels
            # Zeros: channels not filled yet are multiplied by zero weights.
            empty = x.new_zeros(x.shape[0], *x.shape[2:], size)
            self.buffers.append(empty.permute(0, 3, 1, 2))
        self.buffers[buffer][:, column * channels : (column + 1) * channels] = x

    def convolve(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """F.conv2d(cat(tensors), weight, bias), over the channels that both have."""
        (first, part), *others = self._parts(weight)
        out = F.conv2d(first, part, bias)
        for buffer, part in others:
            out += F.conv2d(buffer, part)
        return out

    def weight_gradients(self, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of `convolve` with respect to weight and bias, given that of its output."""
        parts = [
            torch.ops.aten.convolution_backward(
                *(grad, buffer, part, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
                output_mask=[False, True, i == 0],
            )[1:]
            for i, (buffer, part) in enumerate(self._parts(weight))
        ]
        return torch.cat([part for part, _ in parts], dim=1)[:, : weight.shape[1]], parts[0][1]

    def _parts(self, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each buffer that the weight covers, with its slice of the weight, padded with zeros."""
        width = self.buffers[0].shape[1]
        parts = list(zip(self.buffers, weight.split(width, dim=1), strict=False))
        buffer, last = parts[-1]
        parts[-1] = (buffer, F.pad(last, [0, 0, 0, 0, 0, buffer.shape[1] - last.shape[1]]))
        return [(buffer, part.contiguous()) for buffer, part in parts]


class DenseFeatures:
    """The features of a dense chain, appended one by one.

    Args:
        first: [B, C, H, W].
        length: total number of features.
    """

    def __init__(self, first: Tensor, length: int) -> None:
        self.chain = _Chain(length)
        self.token = first.new_zeros(length - 1)
        self.append(first)

    def append(self, x: Tensor) -> None:
        """Append a feature, [B, C, H, W]."""
        self.token = _Append.apply(x, self.token, self.chain)  # type: ignore[no-untyped-call]

    def fuse(self, layer: nn.Module) -> Tensor:
        """Apply a 1x1 convolution with C output channels to all features so far: [B, C, H, W]."""
        assert isinstance(layer, nn.Conv2d)
        return _Fuse.apply(  # type: ignore[no-untyped-call]
            layer.weight, layer.bias, self.token, self.chain
        )


class _Chain:
    """State shared by forward and backward.

    Must not reference the tokens: they reference it, and the cycle would leak the graph.
    """

    def __init__(self, length: int) -> None:
        self.features, self.count = FeatureBuffers(length), 0
        self.gradients = FeatureBuffers(length - 1)
        self.places: dict[int, int] = {}  # number of fused features -> index in `gradients`
        self.weights: Tensor | None = None  # of the fusions, see `put_gradient`

    def put_gradient(self, grad: Tensor, weight: Tensor) -> int:
        """Store a fusion's gradient, [B, C, H, W], and weight, [C, n * C, 1, 1]; return its index.

        A second backward through a retained graph overwrites what the first one stored.
        """
        channels, longest = grad.shape[1], self.gradients.length
        count = weight.shape[1] // channels
        place = self.places.setdefault(count, len(self.places))
        self.gradients.put(place, grad)
        if self.weights is None:
            # weights[i] is the weight of the convolution that gives the gradient of feature i.
            self.weights = grad.new_zeros(longest + 1, channels, longest, channels)
        self.weights[:count, :, place] = weight.view(channels, count, channels).permute(1, 2, 0)
        return place


class _Append(torch.autograd.Function):
    """Store a feature and return a new token.

    Every fusion takes the newest token. Autograd therefore runs the backward of a feature after
    those of all fusions that read it. The gradient of the token is nonzero at the indices where
    these fusions stored their gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, chain: _Chain) -> Tensor:
        ctx.chain, ctx.place = chain, chain.count
        chain.features.put(chain.count, x)
        chain.count += 1
        return torch.zeros_like(token)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, used: Tensor) -> tuple[Tensor, Tensor, None]:
        weight = ctx.chain.weights[ctx.place] * used[:, None]
        return ctx.chain.gradients.convolve(weight.flatten(1)[..., None, None]), used, None


class _Fuse(torch.autograd.Function):
    """Convolve all features stored so far; `_Append` computes the gradients of the features."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, token: Tensor, chain: _Chain) -> Tensor:
        weight = weight.to(token.dtype)  # the dtype of the features: lower under autocast
        ctx.save_for_backward(weight, token)
        ctx.chain = chain
        return chain.features.convolve(weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, token = ctx.saved_tensors
        used = torch.zeros_like(token)
        used[ctx.chain.put_gradient(grad, weight)] = 1
        return *ctx.chain.features.weight_gradients(weight, grad), used, None
