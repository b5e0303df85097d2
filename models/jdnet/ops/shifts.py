"""Pairwise attention (Eq. 2-4) in plain PyTorch: a loop over footprint shifts, on any device.

The backward needs only the inputs: it recomputes the weights.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from models.jdnet.activation import SLOPE
from models.jdnet.ops.inputs import Inputs


def forward(inputs: Inputs, footprint: int) -> Tensor:
    """The attention output y of Eq. 2, [B, V, H, W]."""
    alpha = _weights(inputs, footprint)
    b, _, h, w = inputs.phi.shape
    out = inputs.beta.new_zeros(b, inputs.beta.shape[1], h, w)
    for k, shifted in enumerate(_shifts(inputs.beta, footprint)):
        out.addcmul_(alpha[:, k : k + 1], shifted)  # Eq. 2
    return out


def backward(grad_out: Tensor, inputs: Inputs, footprint: int) -> Inputs:
    """Gradients with respect to the inputs."""
    phi, psi, beta, position, position_padded, gamma = inputs
    relations = phi.shape[1]
    alpha = _weights(inputs, footprint)
    grad_beta = torch.zeros_like(beta)
    grad_logits = torch.empty_like(alpha)
    for k, (shifted, grad_shifted) in enumerate(
        zip(_shifts(beta, footprint), _shifts(grad_beta, footprint), strict=True)
    ):
        torch.sum(grad_out * shifted, dim=1, out=grad_logits[:, k])
        grad_shifted.addcmul_(alpha[:, k : k + 1], grad_out)
    # Softmax: d_logit = alpha * (d_alpha - sum over the footprint of alpha * d_alpha).
    grad_logits.sub_((alpha * grad_logits).sum(dim=1, keepdim=True)).mul_(alpha)

    grad_phi, grad_psi, grad_content = _relation_backward(
        grad_logits, phi, psi, gamma[:relations], footprint
    )
    grad_position, grad_padded, grad_place = _relation_backward(
        grad_logits.sum(dim=0, keepdim=True),  # the batch shares one position
        position,
        position_padded,
        gamma[relations:],
        footprint,
    )
    grad_gamma = torch.cat([grad_content, grad_place])
    return Inputs(grad_phi, grad_psi, grad_beta, grad_position, grad_padded, grad_gamma)


def _shifts(padded: Tensor, footprint: int) -> Iterator[Tensor]:
    """Views of a padded tensor, one per neighbour, in row-major order."""
    h, w = padded.shape[2] - footprint + 1, padded.shape[3] - footprint + 1
    for top in range(footprint):
        for left in range(footprint):
            yield padded[:, :, top : top + h, left : left + w]


def _weights(inputs: Inputs, footprint: int) -> Tensor:
    """The adaptive weights alpha of Eq. 3, [B, K*K, H, W]."""
    phi, psi, _, position, position_padded, gamma = inputs
    relations = phi.shape[1]
    logits = _relation(phi, psi, gamma[:relations], footprint)
    logits += _relation(position, position_padded, gamma[relations:], footprint)
    return logits.softmax(dim=1)  # Eq. 3


def _relation(query: Tensor, key: Tensor, gamma: Tensor, footprint: int) -> Tensor:
    """The logits gamma . LeakyReLU(query_i - key_j) of Eq. 3 and 4, [B, K*K, H, W]."""
    b, _, h, w = query.shape
    logits = query.new_empty(b, footprint**2, h, w)
    for k, shifted in enumerate(_shifts(key, footprint)):
        difference = query - shifted  # Eq. 4
        relation = F.leaky_relu_(difference, SLOPE).mul_(gamma.view(1, -1, 1, 1))
        torch.sum(relation, dim=1, out=logits[:, k])
    return logits


def _relation_backward(
    grad_logits: Tensor, query: Tensor, key: Tensor, gamma: Tensor, footprint: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `_relation` with respect to query, key and gamma."""
    grad_query, grad_key = torch.zeros_like(query), torch.zeros_like(key)
    grad_gamma = torch.zeros_like(gamma)
    for k, (shifted, grad_shifted) in enumerate(
        zip(_shifts(key, footprint), _shifts(grad_key, footprint), strict=True)
    ):
        difference = query - shifted
        grad = grad_logits[:, k : k + 1]
        grad_gamma += (F.leaky_relu(difference, SLOPE) * grad).sum(dim=(0, 2, 3))
        grad = grad * gamma.view(1, -1, 1, 1)
        grad = torch.ops.aten.leaky_relu_backward(grad, difference, SLOPE, False)
        grad_query += grad
        grad_shifted -= grad
    return grad_query, grad_key, grad_gamma
