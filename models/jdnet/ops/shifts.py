"""Pairwise attention (Eq. 2-4) in plain PyTorch: a loop over footprint shifts, on any device.

The backward needs only the inputs: it recomputes the weights.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from models.jdnet.activation import SLOPE
from models.jdnet.ops.inputs import Inputs
from models.jdnet.ops.self_check import Result

TOLERANCE = 1e-4  # of the compiled implementations; their errors are about 1e-6


def forward(inputs: Inputs, footprint: int) -> Tensor:
    """The attention output y of Eq. 2, [B, V, H, W]."""
    _, _, beta = inputs.split()
    alpha = _weights(inputs, footprint)
    out = torch.zeros_like(beta, memory_format=torch.contiguous_format)
    for k, shifted in enumerate(_shifts(_pad(beta, footprint), footprint)):
        out.addcmul_(alpha[:, k : k + 1], shifted)  # Eq. 2
    return out


def backward(grad_out: Tensor, inputs: Inputs, footprint: int) -> Inputs:
    """Gradients with respect to the inputs. Deterministic, also on CUDA."""
    phi, psi, beta = inputs.split()
    relations = phi.shape[1]
    alpha = _weights(inputs, footprint)
    padded = _pad(beta, footprint)
    grad_padded = torch.zeros_like(padded)
    grad_logits = torch.empty_like(alpha)
    for k, (shifted, grad_shifted) in enumerate(
        zip(_shifts(padded, footprint), _shifts(grad_padded, footprint), strict=True)
    ):
        torch.sum(grad_out * shifted, dim=1, out=grad_logits[:, k])
        grad_shifted.addcmul_(alpha[:, k : k + 1], grad_out)
    # Softmax: d_logit = alpha * (d_alpha - sum over the footprint of alpha * d_alpha).
    grad_logits.sub_((alpha * grad_logits).sum(dim=1, keepdim=True)).mul_(alpha)

    grad_phi, grad_psi, grad_content = _relation_backward(
        grad_logits, phi, psi, inputs.gamma[:relations], footprint
    )
    as_query, as_key, grad_place = _relation_backward(
        grad_logits.sum(dim=0, keepdim=True),  # the batch shares one position
        inputs.position,
        inputs.position,
        inputs.gamma[relations:],
        footprint,
    )
    grad_beta = _unpad(grad_padded, footprint)
    return Inputs(
        torch.cat([grad_phi, grad_psi, grad_beta], dim=1),
        as_query + as_key,
        torch.cat([grad_content, grad_place]),
    )


def compare(
    compiled_forward: Callable[[Inputs, int], Tensor],
    compiled_backward: Callable[[Tensor, Inputs, int], Inputs],
    device: torch.device,
) -> Iterator[Result]:
    """Outputs and gradients of a compiled implementation and of this one, for its self-check.

    The images fill several vectors and bands of the C++ code and several blocks of Triton's, and
    the last of each in part.
    """
    generator = torch.Generator().manual_seed(0)
    images, h, w, relations, values, footprint = 2, 17, 19, 2, 8, 7
    *tensors, grad = (
        torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        for shape in (
            (images, 2 * relations + values, h, w),
            (1, 2, h, w),
            (relations + 2,),
            (images, values, h, w),
        )
    )
    inputs, exact = Inputs(*(x.to(device) for x in tensors)), Inputs(*(x.double() for x in tensors))
    out = compiled_forward(inputs, footprint)
    yield Result("the output", out, forward(exact, footprint), TOLERANCE)
    ours = compiled_backward(grad.to(device), inputs, footprint)
    theirs = backward(grad.double(), exact, footprint)
    for name, mine, their in zip(Inputs._fields, ours, theirs, strict=True):
        yield Result(f"the gradient of {name}", mine, their, TOLERANCE)


def _pad(x: Tensor, footprint: int) -> Tensor:
    return F.pad(x, [footprint // 2] * 4, mode="reflect")


def _unpad(grad: Tensor, footprint: int) -> Tensor:
    """Gradient of `_pad`: add the border to the pixels that it mirrors.

    The backward of F.pad is not deterministic on CUDA.
    """
    radius = footprint // 2
    for dim in (2, 3):
        length = grad.shape[dim] - 2 * radius
        before, inside, after = grad.split([radius, length, radius], dim)
        inside.narrow(dim, 1, radius).add_(before.flip(dim))
        inside.narrow(dim, length - 1 - radius, radius).add_(after.flip(dim))
        grad = inside
    return grad


def _shifts(padded: Tensor, footprint: int) -> Iterator[Tensor]:
    """Views of a padded tensor, one per neighbour, in row-major order."""
    h, w = padded.shape[2] - footprint + 1, padded.shape[3] - footprint + 1
    for top in range(footprint):
        for left in range(footprint):
            yield padded[:, :, top : top + h, left : left + w]


def _weights(inputs: Inputs, footprint: int) -> Tensor:
    """The adaptive weights alpha of Eq. 3, [B, K*K, H, W]."""
    phi, psi, _ = inputs.split()
    relations = phi.shape[1]
    logits = _relation(phi, psi, inputs.gamma[:relations], footprint)
    logits += _relation(inputs.position, inputs.position, inputs.gamma[relations:], footprint)
    return logits.softmax(dim=1)  # Eq. 3


def _relation(query: Tensor, key: Tensor, gamma: Tensor, footprint: int) -> Tensor:
    """The logits gamma . LeakyReLU(query_i - key_j) of Eq. 3 and 4, [B, K*K, H, W]."""
    b, _, h, w = query.shape
    logits = query.new_empty(b, footprint**2, h, w)
    for k, shifted in enumerate(_shifts(_pad(key, footprint), footprint)):
        difference = query - shifted  # Eq. 4
        relation = F.leaky_relu_(difference, SLOPE).mul_(gamma.view(1, -1, 1, 1))
        torch.sum(relation, dim=1, out=logits[:, k])
    return logits


def _relation_backward(
    grad_logits: Tensor, query: Tensor, key: Tensor, gamma: Tensor, footprint: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `_relation` with respect to query, key and gamma."""
    padded = _pad(key, footprint)
    grad_query, grad_padded = torch.zeros_like(query), torch.zeros_like(padded)
    grad_gamma = torch.zeros_like(gamma)
    for k, (shifted, grad_shifted) in enumerate(
        zip(_shifts(padded, footprint), _shifts(grad_padded, footprint), strict=True)
    ):
        difference = query - shifted
        grad = grad_logits[:, k : k + 1]
        grad_gamma += (F.leaky_relu(difference, SLOPE) * grad).sum(dim=(0, 2, 3))
        grad = grad * gamma.view(1, -1, 1, 1)
        grad = torch.ops.aten.leaky_relu_backward(grad, difference, SLOPE, False)
        grad_query += grad
        grad_shifted -= grad
    return grad_query, _unpad(grad_padded, footprint), grad_gamma
