"""The inputs of every implementation of the pairwise attention."""

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """Input tensors. The same tuple holds the gradients, with the same shapes."""

    features: Tensor  # [B, 2R + V, H, W]: queries phi, keys psi, values beta
    position: Tensor  # [1, P, H, W]
    gamma: Tensor  # [R + P]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """R, P and V, the numbers of channels of relation, position and values."""
        positions = self.position.shape[1]
        relations = len(self.gamma) - positions
        return relations, positions, self.features.shape[1] - 2 * relations

    def split(self) -> tuple[Tensor, ...]:
        """Views of phi, psi and beta."""
        relations, _, values = self.sizes
        return self.features.split([relations, relations, values], dim=1)
