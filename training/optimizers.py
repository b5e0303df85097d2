"""Optimizers: PyTorch's Adam, and Muon for the filters of a convolutional network."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from config.schema import Training

ROOT_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # a, b, c of the quintic Newton-Schulz iteration
ADAM_RMS = 0.2  # typical RMS of an Adam update, in units of the learning rate


class Muon(torch.optim.Optimizer):
    """Muon for filters and Adam for the other parameters, biases and norms.

    A filter [out, in, k, k] is treated as a matrix [out, in * k * k]. Its update is the Nesterov
    momentum, orthogonalised so that all singular values are near 1, and scaled by
    0.2 * sqrt(max(out, in * k * k)). The update then has the RMS of an Adam update, so learning
    rates tuned for Adam can be reused.

    Args:
        network: network to optimise; parameters with two or more dimensions are filters.
        lr: learning rate of both Muon and Adam.
        weight_decay: decoupled, filters only: each step multiplies them by 1 - lr * weight_decay.
        momentum: momentum of Muon, in [0, 1).
        betas: Adam's betas.
        eps: Adam's epsilon.

    Source: Jordan et al., "Muon" (2024) for the update; Liu et al., "Muon is scalable for LLM
    training" (arXiv:2502.16982), section 2.2 for the scale and the weight decay.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        parameters = list(network.parameters())
        filters = [p for p in parameters if p.dim() >= 2]
        others = [p for p in parameters if p.dim() < 2]
        groups = [
            {"params": filters, "weight_decay": weight_decay, "momentum": momentum},
            {"params": others, "betas": betas, "eps": eps},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; `closure` must be None.

        Raises:
            ValueError: other filters than before have a gradient.
        """
        assert closure is None
        for group in self.param_groups:
            update = self._step_filters if "momentum" in group else self._step_others
            if parameters := [p for p in group["params"] if p.grad is not None]:
                update(group, parameters)

    def _step_filters(self, group: dict[str, Any], filters: list[Tensor]) -> None:
        # Filters of the same shape are orthogonalised as one batch. The state of the first filter
        # holds the momentum of the batch.
        batches = defaultdict(list)
        for p in filters:
            batches[p.shape].append(p)
        for shape, batch in batches.items():
            grads = torch.stack([p.grad for p in batch if p.grad is not None]).flatten(2)
            state = self.state[batch[0]]
            if not state:
                state["momentum"] = torch.zeros_like(grads)
            if state["momentum"].shape != grads.shape:
                raise ValueError("Muon needs gradients of the same parameters in every step")
            momentum = state["momentum"].lerp_(grads, 1 - group["momentum"])
            updates = orthogonalize(grads.lerp_(momentum, group["momentum"]))
            scale = ADAM_RMS * math.sqrt(max(updates.shape[1:]))
            for p, update in zip(batch, updates, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.view(shape), alpha=-group["lr"] * scale)

    def _step_others(self, group: dict[str, Any], others: list[Tensor]) -> None:
        # Adam runs on the concatenation of hundreds of small vectors. The state of the first vector
        # holds the moments of all.
        grads = torch.cat([p.grad.flatten() for p in others if p.grad is not None])
        state = self.state[others[0]]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(grads), "square": torch.zeros_like(grads)}
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean = state["mean"].lerp_(grads, 1 - beta1)
        square = state["square"].lerp_(grads.square(), 1 - beta2)
        root = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        updates = (mean / root).split([p.numel() for p in others])
        for p, update in zip(others, updates, strict=True):
            p.add_(update.view_as(p), alpha=-group["lr"] / (1 - beta1 ** state["step"]))


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Map the singular values of each matrix [B, M, N] to about 0.7 to 1.2.

    Each Newton-Schulz iteration maps a singular value s to a s + b s^3 + c s^5. Values very near 0
    stay smaller, and a zero matrix stays zero.

    Source: Jordan et al., "Muon" (2024).
    """
    if matrices.shape[1] > matrices.shape[2]:  # x @ x.mT is smaller for the shorter side
        return orthogonalize(matrices.mT, iterations).mT
    a, b, c = ROOT_COEFFICIENTS
    x: Tensor = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(iterations):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


def make_optimizer(recipe: Training, network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe."""
    if recipe.optimizer == "muon":
        return Muon(network, recipe.lr, recipe.weight_decay)
    return torch.optim.Adam(network.parameters(), fused=True)
