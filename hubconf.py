"""Entry points of torch.hub; see docs/python.md.

torch.hub.load("PATH_OF_THIS_REPOSITORY", "jdnet_small", source="local")
"""

# torch.hub.list names every callable of this module, so that only modules are imported.
import pathlib
import typing

import torch

import models

dependencies = ["PIL", "cv2", "numpy", "safetensors", "tifffile", "torch", "tqdm"]

WEIGHTS = pathlib.Path(__file__).resolve().parent / "weights"


def jdnet_small(
    weights: typing.Literal["real", "rain100l", "rain100h"] = "real", device: str = "cpu"
) -> torch.nn.Module:
    """JDNet with 8 units and the weights of this repository, in evaluation mode.

    Takes and returns float32 [B, 3, H, W], RGB in [0, 1]; the output is not clamped.

    Args:
        weights: "real" for photographs, "rain100l" for light and "rain100h" for heavy rain; see
            weights/README.md.
        device: where to put the network.

    Raises:
        UserError: there are no such weights.
    """
    return models.load_network(WEIGHTS / f"jdnet-small-{weights}.safetensors", device)
