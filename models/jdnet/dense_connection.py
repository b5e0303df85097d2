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
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Tensors per buffer. In half precision every buffer rounds the sum once more; in float32 the speed
# hardly depends on it.
GROUP = 8


class FeatureBuffers:
    """A concatenation of [B, C, H, W] tensors, stored in channels-last buffers of `GROUP` each.

    Args:
        length: total number of tensors.
    """

    def __init__(self, length: int) -> None:
        self.length, self.count = length, 0
        self.buffers: list[Tensor] = []  # [B, H, W, channels]

    def put(self, place: int, x: Tensor) -> None:
        """Store a tensor at index `place`: the next free index, or one to overwrite."""
        channels, (buffer, column) = x.shape[1], divmod(place, GROUP)
        if buffer == len(self.buffers):
            size = min(GROUP, self.length - place) * channels
            self.buffers.append(x.new_empty(x.shape[0], *x.shape[2:], size))
        self.buffers[buffer][..., column * channels : (column + 1) * channels] = _pixels_last(x)
        self.count = max(self.count, place + 1)

    def convolve(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """F.conv2d(cat(tensors), weight, bias), over the channels that both have."""
        images, h, w, _ = self.buffers[0].shape
        # Not a view: autograd forbids in-place functions of views that a Function returns.
        out = torch.empty(
            (images, len(weight), h, w),
            dtype=weight.dtype,
            device=weight.device,
            memory_format=torch.channels_last,
        )
        rows = _pixels_last(out).flatten(0, 2)
        (first, part), *others = self._parts(weight)
        if bias is None:
            torch.mm(first, part.t(), out=rows)
        else:
            torch.addmm(bias, first, part.t(), out=rows)
        for pixels, part in others:
            torch.addmm(rows, pixels, part.t(), out=rows)
        return out

    def weight_gradients(self, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of `convolve` with respect to weight and bias, given that of its output."""
        rows = _pixels_last(grad).flatten(0, 2)
        parts = [rows.t() @ pixels for pixels, _ in self._parts(weight)]
        return torch.cat(parts, dim=1).view_as(weight), rows.sum(dim=0)

    def _parts(self, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Stored channels, [pixels, channels], that the weight covers, with its slice."""
        out_channels, covered = weight.shape[:2]
        stored = self.count * out_channels  # a tensor has as many channels as the output
        width = self.buffers[0].shape[3]
        parts = weight.flatten(1)[:, : min(covered, stored)].split(width, dim=1)
        return [
            (buffer.flatten(0, 2)[:, : part.shape[1]], part)
            for buffer, part in zip(self.buffers, parts, strict=False)
        ]


def _pixels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


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
        self.features = FeatureBuffers(length)
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
        ctx.chain, ctx.place = chain, chain.features.count
        chain.features.put(ctx.place, x)
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
        # The dtype of the features: lower under autocast.
        weight, bias = weight.to(token.dtype), bias.to(token.dtype)
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
