"""Convert a released JDNet checkpoint into a weights file of this code, or back.

    python tools/convert_checkpoint.py latest_net jdnet-rain100h.safetensors
    python tools/convert_checkpoint.py --back runs/rain100h/best.pt latest_net

The released code (2020) saves {"net": state, ...} with `module.` before every key, and works on
BGR images. Here the state is bare and RGB, so the first layer's input channels and the last
layer's output channels are reversed. Tensors are otherwise the same, one to one, under other
names; `RENAMES` and `UNIT_RENAMES` are the whole map.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models import JDNet
from utils import checkpoint
from utils.checkpoint import Weights
from utils.errors import Parser, UserError, run_command

# Ours -> released. Those of a joint unit come after `units.N.` and `derain_net.units.N.`.
RENAMES = (
    (r"enter\.", "enterBlock.0."),
    (r"leave\.", "exitBlock.0."),
    (r"dense\.(\d+)\.", r"derain_net.conv1x1.\1.0."),
)
UNIT_RENAMES = (
    (r"attention\.norm_in\.", "san.bn1."),
    (r"attention\.phi\.", "san.sam.conv1."),
    (r"attention\.psi\.", "san.sam.conv2."),
    (r"attention\.beta\.", "san.sam.conv3."),
    (r"attention\.position\.", "san.sam.conv_p."),
    (r"attention\.gamma1\.", "san.sam.conv_w.1."),
    (r"attention\.gamma2\.", "san.sam.conv_w.2."),
    (r"attention\.norm_out\.", "san.bn2."),
    (r"attention\.expand\.", "san.conv."),
    (r"aggregation\.down\.(\d+)\.", r"res_list.\1.convert.0."),
    (r"aggregation\.blocks\.(\d+)\.", r"res_list.\1.res."),
    (r"aggregation\.fuse\.", "conv11.0."),
    (r"calibration\.split1\.", "scn.conv1_b."),
    (r"calibration\.split2\.", "scn.conv1_a."),
    (r"calibration\.k1\.", "scn.k1.0."),
    (r"calibration\.k2\.", "scn.scconv.k2.1."),
    (r"calibration\.k3\.", "scn.scconv.k3.0."),
    (r"calibration\.k4\.", "scn.scconv.k4.0."),
    (r"calibration\.merge\.", "scn.conv3."),
)


# The axis of colours in the released first and last layers.
RELEASED_AXES = {"enterBlock.0.weight": 1, "exitBlock.0.weight": 0, "exitBlock.0.bias": 0}


def released_key(key: str) -> str:
    """The released name of one of our tensors."""
    unit = re.match(r"units\.\d+\.", key)
    front, rest = (f"derain_net.{unit[0]}", key[unit.end() :]) if unit else ("", key)
    for pattern, replacement in UNIT_RENAMES if unit else RENAMES:
        renamed, count = re.subn("^" + pattern, replacement, rest)
        if count:
            return front + renamed
    raise KeyError(key)


def from_released(state: dict[str, Tensor], source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our network's arguments and state from a released state without prefixes.

    Pooling and footprint leave no trace in the shapes: the released 4 and 7 are taken.

    Raises:
        UserError: the state is no released JDNet's, whole and nothing else.
    """
    if "enterBlock.0.weight" not in state:
        raise UserError(
            f"{source} is no released JDNet: expected enterBlock.0.weight, got {next(iter(state))}"
        )
    arguments: dict[str, Any] = {
        "units": _count(state, r"derain_net\.units\.(\d+)\."),
        "channels": len(state["enterBlock.0.weight"]),
        "scales": _count(state, r"derain_net\.units\.0\.res_list\.(\d+)\."),
        "self_attention": any(".san." in key for key in state),
        "self_calibration": any(".scn." in key for key in state),
    }
    network = JDNet(**arguments)
    names = {released_key(key): key for key in network.state_dict()}
    # An unknown key keeps its name, for the strict load to find.
    swapped = _swap_colours(state, RELEASED_AXES)
    ours = {names.get(key, key): tensor for key, tensor in swapped.items()}
    checkpoint.load_state(network, ours, source)
    return arguments, ours


def to_released(weights: Weights, source: Path) -> dict[str, Tensor]:
    """The released state, with `module.` before every key, from ours.

    Raises:
        UserError: the weights are no JDNet's, whole and nothing else, or of a network that the
            released code cannot build.
    """
    if weights.network not in (None, "jdnet") or "enter.weight" not in weights.state:
        raise UserError(f"{source} is no JDNet of this code: it lacks enter.weight")
    for key, released in {"position": "image", "pooling": 4, "footprint": 7}.items():
        if weights.arguments.get(key, released) != released:
            raise UserError(
                f"{source} has {key} {weights.arguments[key]}: the released code has {released}"
            )
    renamed = {_released_or_same(key): tensor for key, tensor in weights.state.items()}
    from_released(_swap_colours(renamed, RELEASED_AXES), source)  # whole and nothing else
    released_state = _swap_colours(renamed, RELEASED_AXES)
    return {"module." + key: tensor for key, tensor in released_state.items()}


def _released_or_same(key: str) -> str:
    try:
        return released_key(key)
    except KeyError:
        return key


def _count(state: dict[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _swap_colours(state: dict[str, Tensor], axes: dict[str, int]) -> dict[str, Tensor]:
    """RGB <-> BGR: reverse what the first layer reads and what the last layer writes."""
    return {key: t.flip(axes[key]) if key in axes else t for key, t in state.items()}


def main(arguments: list[str]) -> None:
    """Run `tools/convert_checkpoint.py [--back] SOURCE TARGET`."""
    parser = Parser(
        "convert_checkpoint.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path, help="checkpoint to read")
    parser.add_argument("target", type=Path, help="checkpoint to write")
    parser.add_argument("--back", action="store_true", help="from our format to the released one")
    options = parser.parse_args(arguments)
    weights = checkpoint.load_weights(options.source)
    if options.back:
        checkpoint.save(options.target, {"net": to_released(weights, options.source)})
    else:
        built, state = from_released(weights.state, options.source)
        metadata = {"converted_from": options.source.name}
        checkpoint.save_weights(options.target, Weights(state, "jdnet", built, metadata))
    print(f"written: {options.target}")


if __name__ == "__main__":
    run_command(main)
