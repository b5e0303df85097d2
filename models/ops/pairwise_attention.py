r"""Pairwise self-attention over a square footprint (JDNet paper, section 3.2; SAN, CVPR 2020).

For a pixel i and every neighbour j in its footprint R(i):

    delta_ij = [phi_i - psi_j, p_i - p_j]                     relation            (Eq. 4)
    alpha_ij = softmax_j( gamma . LeakyReLU(delta_ij) )       adaptive weight     (Eq. 3)
    y_i      = sum over j of alpha_ij * beta_j                aggregation         (Eq. 2)

The position term p, the softmax and the reflected border are in the released code, not in the
paper's equations. The released gamma is two 1x1 convolutions with nothing between them: one
weight per relation channel, once multiplied out. Additive constants vanish in the softmax.

`pairwise_attention_reference` is the text-book form; it copies every feature footprint**2 times.
`pairwise_attention` walks over the shifts instead and computes the weights again in the backward.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SLOPE = 0.2  # LeakyReLU, everywhere in JDNet


def pairwise_attention_reference(
    phi: Tensor, psi: Tensor, beta: Tensor, position: Tensor, gamma: Tensor, footprint: int
) -> Tensor:
    """Compute what `pairwise_attention` does, by unfolding: slow, large, easy to check by eye."""
    n, _, h, w = beta.shape

    def neighbours(x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, K*K, H, W]
        padded = F.pad(x, [footprint // 2] * 4, mode="reflect")
        return F.unfold(padded, footprint).view(len(x), -1, footprint**2, h, w)

    content = phi.unsqueeze(2) - neighbours(psi)
    place = (position.unsqueeze(2) - neighbours(position)).expand(n, -1, -1, -1, -1)
    delta = torch.cat([content, place], dim=1)
    logits = (F.leaky_relu(delta, SLOPE) * gamma.view(1, -1, 1, 1, 1)).sum(dim=1)
    alpha = logits.softmax(dim=1)
    return (alpha.unsqueeze(1) * neighbours(beta)).sum(dim=2)


def pairwise_attention(
    phi: Tensor, psi: Tensor, beta: Tensor, position: Tensor, gamma: Tensor, footprint: int
) -> Tensor:
    """Aggregate `beta` over each pixel's footprint with weights made from differences.

    Args:
        phi: query features, [B, R, H, W].
        psi: key features, [B, R, H, W].
        beta: value features, [B, V, H, W].
        position: position features, the same for every image, [1, P, H, W].
        gamma: one weight per relation channel, [R + P].
        footprint: side of the square footprint, odd; H and W must exceed half of it.

    Returns:
        [B, V, H, W]; one weight map serves all V channels. Half-precision inputs are computed,
        and returned, in float32.

    Source: JDNet paper, section 3.2, Eq. 2-4.
    """
    with torch.autocast(phi.device.type, enabled=False):
        if phi.dtype in (torch.float16, torch.bfloat16):
            phi, psi, beta, position = phi.float(), psi.float(), beta.float(), position.float()
        pad = [footprint // 2] * 4
        out: Tensor = _ShiftAttention.apply(  # type: ignore[no-untyped-call]
            phi,
            F.pad(psi, pad, mode="reflect"),
            F.pad(beta, pad, mode="reflect"),
            position,
            F.pad(position, pad, mode="reflect"),
            gamma.to(phi.dtype),
            footprint,
        )
        return out


class _ShiftAttention(torch.autograd.Function):
    """The operator as a loop over the footprint's shifts; keys and values come padded."""

    @staticmethod
    def forward(
        ctx: Any,
        phi: Tensor,
        psi: Tensor,
        beta: Tensor,
        position: Tensor,
        position_padded: Tensor,
        gamma: Tensor,
        footprint: int,
    ) -> Tensor:
        ctx.footprint = footprint
        ctx.save_for_backward(phi, psi, beta, position, position_padded, gamma)
        alpha = _weights(phi, psi, position, position_padded, gamma, footprint)
        out = beta.new_zeros(phi.shape[0], beta.shape[1], *phi.shape[2:])
        for k, shifted in enumerate(_shifts(beta, footprint)):
            out.addcmul_(alpha[:, k : k + 1], shifted)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        phi, psi, beta, position, position_padded, gamma = ctx.saved_tensors
        footprint, relations = ctx.footprint, phi.shape[1]
        alpha = _weights(phi, psi, position, position_padded, gamma, footprint)

        grad_beta = torch.zeros_like(beta)
        grad_logits = torch.empty_like(alpha)
        for k, (shifted, grad_shifted) in enumerate(
            zip(_shifts(beta, footprint), _shifts(grad_beta, footprint), strict=True)
        ):
            torch.sum(grad_out * shifted, dim=1, out=grad_logits[:, k])
            grad_shifted.addcmul_(alpha[:, k : k + 1], grad_out)
        # Softmax: d logit = alpha * (d alpha - sum over the footprint of alpha * d alpha).
        grad_logits.sub_((alpha * grad_logits).sum(dim=1, keepdim=True)).mul_(alpha)

        grad_phi, grad_psi, grad_content = _relation_backward(
            grad_logits, phi, psi, gamma[:relations], footprint
        )
        grad_position, grad_padded, grad_place = _relation_backward(
            grad_logits.sum(dim=0, keepdim=True),  # the position is shared by the batch
            position,
            position_padded,
            gamma[relations:],
            footprint,
        )
        grad_gamma = torch.cat([grad_content, grad_place])
        return grad_phi, grad_psi, grad_beta, grad_position, grad_padded, grad_gamma, None


def _shifts(padded: Tensor, footprint: int) -> Iterator[Tensor]:
    """Views of a padded tensor, one per neighbour, rows slow and columns fast."""
    h, w = padded.shape[2] - footprint + 1, padded.shape[3] - footprint + 1
    for top in range(footprint):
        for left in range(footprint):
            yield padded[:, :, top : top + h, left : left + w]


def _weights(
    phi: Tensor,
    psi: Tensor,
    position: Tensor,
    position_padded: Tensor,
    gamma: Tensor,
    footprint: int,
) -> Tensor:
    """Adaptive weights alpha, [B, K*K, H, W]: Eq. 3."""
    relations = phi.shape[1]
    logits = _relation(phi, psi, gamma[:relations], footprint)
    logits += _relation(position, position_padded, gamma[relations:], footprint)
    return logits.softmax(dim=1)


def _relation(query: Tensor, key: Tensor, gamma: Tensor, footprint: int) -> Tensor:
    """Logits gamma . LeakyReLU(query_i - key_j), [B, K*K, H, W]: Eq. 4 into Eq. 3."""
    b, _, h, w = query.shape
    logits = query.new_empty(b, footprint**2, h, w)
    for k, shifted in enumerate(_shifts(key, footprint)):
        relation = F.leaky_relu_(query - shifted, SLOPE).mul_(gamma.view(1, -1, 1, 1))
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
