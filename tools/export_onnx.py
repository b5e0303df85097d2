"""Export a network to ONNX, for programs without PyTorch.

    python -m tools.export_onnx jdnet.onnx
    python -m tools.export_onnx prenet.onnx --weights runs/rain100l-prenet/best.pt

Input `rainy` and output `derained` are float32 [1, 3, H, W], RGB in [0, 1], of any size from 32x32
up; the output is not clamped. The file is written only if onnxruntime gives the outputs of PyTorch,
to 1e-4. This takes some minutes. docs/python.md has an example of use.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import default_weights
from config.cli import tool_options
from models import JDNet, Network, load_network
from models.jdnet.activation import leaky_relu
from models.jdnet.self_attention import patch_coordinates
from utils.errors import UserError, run_command
from utils.files import refuse_overwriting, replacing

TOLERANCE = 1e-4
SIZES = ((32, 32), (97, 131), (114, 122))  # ONNX's own up-sampling differs at the last


@dataclass(frozen=True)
class Options:
    """What to export."""

    target: Path
    """File to write, NAME.onnx."""
    weights: Path | None = None
    """Weights; by default those of show.py."""


class PortableJDNet(nn.Module):
    """JDNet with its dense connections in operations of ONNX.

    The operators of the units are those of `tools/onnx_operators.py`.
    """

    def __init__(self, network: JDNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor) -> Tensor:
        """[1, 3, H, W] -> [1, 3, H, W], H and W at least `JDNet.smallest`."""
        network = self.network
        image = network.position == "image"
        place = _image_coordinates(rainy) if image else patch_coordinates(rainy)
        x = leaky_relu(network.head(rainy))
        features = [x]
        for unit, dense in zip(network.units, network.dense, strict=True):
            features.append(unit(x, place))
            assert isinstance(dense, nn.Conv2d)
            x = leaky_relu(_fuse(features, dense))
        return rainy - leaky_relu(network.tail(x))  # Eq. 1


def _fuse(features: Sequence[Tensor], layer: nn.Conv2d) -> Tensor:
    """layer(cat(features)), without that concatenation.

    onnxruntime adds while it convolves if the convolution is the first summand. The sum starts with
    the newest feature: a sum that starts with old ones would be computed, and stored, early.
    """
    *older, newest = layer.weight.split([x.shape[1] for x in features], dim=1)
    out = F.conv2d(features[-1], newest, layer.bias)
    for x, weight in zip(features[:-1], older, strict=True):
        out = F.conv2d(x, weight) + out
    return out


def _image_coordinates(x: Tensor) -> Tensor:
    """`image_coordinates` of a whole image, without torch.linspace, which fixes the size."""
    rows, columns = (torch.arange(n, dtype=torch.float32) * 2 / (n - 1) - 1 for n in x.shape[2:])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy")).unsqueeze(0)


def export(network: Network) -> bytes:
    """The ONNX file of a network in evaluation mode, for images of any size from 32x32 up.

    Raises:
        UserError: torch can export the network for a single size only.
    """
    from tools import onnx_operators

    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it tells what it does not optimize
    sides = {axis: torch.export.Dim(name, min=32) for axis, name in ((2, "height"), (3, "width"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch uses what torch deprecates
        program = torch.onnx.export(
            PortableJDNet(network).eval() if isinstance(network, JDNet) else network,
            (torch.rand(1, 3, 41, 67),),
            dynamic_shapes=(sides,),
            input_names=["rainy"],
            output_names=["derained"],
            custom_translation_table={
                torch.ops.aten.upsample_nearest2d.vec: onnx_operators.upsample_nearest,
                torch.ops.jdnet.fuse_scales.default: onnx_operators.fuse_scales,
                torch.ops.jdnet.pairwise_attention.default: onnx_operators.pairwise_attention,
            },
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():  # also those of the loops
        node.metadata_props.clear()  # stack traces with the paths of this machine
    shape = program.model.graph.inputs[0].shape
    if shape is None or shape.is_static(2) or shape.is_static(3):
        raise UserError(f"torch cannot export {type(network).__name__} for images of any size")
    return program.model_proto.SerializeToString()


@torch.inference_mode()
def difference(network: Network, model: bytes, sizes: Sequence[tuple[int, int]] = SIZES) -> float:
    """Largest absolute difference of the ONNX file's outputs, for noise of these sizes."""
    import onnxruntime

    session, largest = onnxruntime.InferenceSession(model), 0.0
    for height, width in sizes:
        rainy = torch.rand(1, 3, height, width)
        (derained,) = session.run(None, {"rainy": rainy.numpy()})
        largest = max(largest, (network(rainy) - torch.from_numpy(derained)).abs().max().item())
    return largest


def main(arguments: list[str]) -> None:
    """Run `python -m tools.export_onnx TARGET`."""
    options = tool_options(Options, arguments, "python -m tools.export_onnx", __doc__)
    if options.target.suffix != ".onnx":
        raise UserError(f"expected NAME.onnx, got {options.target}")
    weights = options.weights or default_weights("real")
    refuse_overwriting(weights, options.target)
    network = load_network(weights)
    try:
        model = export(network)
        largest = difference(network, model)
    except ModuleNotFoundError as error:
        raise UserError(f"no {error.name}: pip install -r requirements-dev.txt") from None
    if not largest <= TOLERANCE:
        raise UserError(f"the exported {weights} is off by {largest:.1e}: nothing was written")
    with replacing(options.target) as stream:
        stream.write(model)
    print(f"written: {options.target}; largest difference from PyTorch: {largest:.1e}")


if __name__ == "__main__":
    run_command(main)
