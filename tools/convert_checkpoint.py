r"""Convert a released checkpoint to a weights file of this code, or back.

    python -m tools.convert_checkpoint latest_net jdnet-rain100h.safetensors
    python -m tools.convert_checkpoint PReNet1.pth real.pt --set stages=4 recurrence_last=true \
        global_residual=false
    python -m tools.convert_checkpoint --back runs/rain100h/best.pt latest_net

Supports JDNet, DCSFN, DANet, the PReNet family and RESCAN, and recognizes them by their keys. The
state dict may be bare or under `net` or `state_dict`, with or without the prefix `module.`.

Tensors are renamed one to one (`released_keys.py`). Released JDNet, DCSFN and RESCAN work on BGR
images, so the colour channels of their first and last layers are reversed. Network arguments that
the tensors do not show are as released unless given with --set.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from config.cli import tool_options
from models.network import Network
from models.registry import CONFIG_CLASSES, build, config_of
from tools.released_keys import released_key
from utils import checkpoint
from utils.checkpoint import Weights
from utils.errors import UserError, run_command
from utils.files import refuse_overwriting

State = dict[str, Tensor]


@dataclass(frozen=True)
class Options:
    """What to convert."""

    source: Path
    """Checkpoint to read."""
    target: Path
    """Checkpoint to write."""
    back: bool = False
    """Convert from our format to the released one."""
    set: tuple[str, ...] = ()
    """Network arguments that the tensors do not show, each NAME=VALUE."""


class Released(NamedTuple):
    """How to recognize a released network and convert its tensors."""

    mark: str  # a key that only this network has
    axes: dict[str, int]  # tensors with colour channels to reverse -> axis of these
    fixed: dict[str, Any]  # our arguments that are constant in the released code


RELEASED = {
    "jdnet": Released(
        "enterBlock.0.weight",
        {"enterBlock.0.weight": 1, "exitBlock.0.weight": 0, "exitBlock.0.bias": 0},
        {"position": "image", "pooling": 4, "footprint": 7},
    ),
    "dcsfn": Released(
        "convert.0.weight",
        {"convert.0.weight": 1, "merge.2.weight": 0, "merge.2.bias": 0},
        {},
    ),
    "danet": Released("dsnet.tail.weight", {}, {}),
    "prenet": Released("conv0.0.weight", {}, {}),
    "rescan": Released("rnns.0.se.fc.0.weight", {"dec.3.weight": 0, "dec.3.bias": 0}, {}),
}


def infer(name: str, state: State) -> dict[str, Any]:
    """Infer constructor arguments from the released tensors."""

    def count(pattern: str) -> int:
        return len({match[1] for key in state if (match := re.match(pattern, key))})

    def has(part: str) -> bool:
        return any(part in key for key in state)

    if name == "jdnet":
        return {
            "units": count(r"derain_net\.units\.(\d+)\."),
            "channels": len(state["enterBlock.0.weight"]),
            "scales": count(r"derain_net\.units\.0\.res_list\.(\d+)\."),
            "self_attention": has(".san."),
            "self_calibration": has(".scn."),
        }
    if name == "dcsfn":
        return {
            "units": count(r"encoder_scale1\.units\.(\d+)\."),
            "channels": len(state["convert.0.weight"]),
            "cell": "gru" if has(".conv_xz.") else "rnn",
        }
    if name == "danet":
        return {
            "channels": state["dsnet.tail.weight"].shape[1],
            # The last entry of the body is a convolution, not a block.
            "blocks": count(r"dsnet\.orsnet\.orb\.body\.(\d+)\.") - 1,
        }
    if name == "prenet":
        recurrences = {"lstm": "conv_i.0.weight", "gru": "conv_z.0.weight"}
        return {
            "channels": len(state["conv0.0.weight"]),
            "recurrence": next((r for r, key in recurrences.items() if key in state), "none"),
            "shared_blocks": not has("res_conv2."),
            "rainy_input": state["conv0.0.weight"].shape[1] == 6,
        }
    cells = {"gru": ".conv_xz.", "lstm": ".conv_xi.", "rnn": ".conv_x."}
    return {
        "channels": len(state["dec.0.weight"]),
        "depth": count(r"rnns\.(\d+)\.") + 2,
        "cell": next((cell for cell, part in cells.items() if has(part)), "conv"),
    }


def from_released(state: State, source: Path, chosen: dict[str, Any] | None = None) -> Weights:
    """Convert a released state dict, without prefixes, to our weights.

    Args:
        state: the released tensors.
        source: file of the tensors, for error messages.
        chosen: network arguments that the tensors do not show.

    Raises:
        UserError: the network is unknown, a tensor is missing, unexpected or of another shape, or
            `chosen` does not fit.
    """
    name = next((n for n, released in RELEASED.items() if released.mark in state), None)
    if name is None:
        marks = ", ".join(released.mark for released in RELEASED.values())
        raise UserError(
            f"{source} is not a released network this code knows: expected one of the keys "
            f"{marks}; got {next(iter(state))}"
        )
    arguments = infer(name, state) | _checked(name, chosen or {})
    try:
        network = build(config_of(name, arguments))
    except (UserError, KeyError) as error:
        raise UserError(f"--set does not fit {name}: {error}") from None
    ours = _rename(network, name, _swap_colours(state, name))
    checkpoint.load_state(network, ours, source)
    return Weights(ours, name, arguments, {"converted_from": source.name})


def _checked(name: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """Refuse arguments that the config of a network lacks, or of another type or range there."""
    config = CONFIG_CLASSES[name]
    defaults = asdict(config())
    for key, value in chosen.items():
        if key not in defaults:
            raise UserError(f"--set: {name} has no {key}, it has {', '.join(defaults)}")
        if type(value) is not type(defaults[key]):
            raise UserError(f"--set: {key} must be of the type of {defaults[key]}, got {value}")
    config(**chosen)
    return chosen


def _rename(network: Network, name: str, state: State) -> State:
    names = {released_key(name, key): key for key in network.state_dict()}
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    # Unknown keys keep their names, and the strict load reports them.
    renamed = {names.get(key, key): tensor for key, tensor in state.items()}
    return {
        # DANet's 1x1 convolutions on pooled features are linear layers here.
        key: t.flatten(1) if t.dim() == 4 and len(shapes.get(key, t.shape)) == 2 else t
        for key, t in renamed.items()
    }


def to_released(weights: Weights, source: Path) -> State:
    """Convert our weights to a released state dict, with `module.` before every key.

    Raises:
        UserError: the weights do not fit their network, or the released code cannot build it.
    """
    name = weights.network or "jdnet"
    if name not in CONFIG_CLASSES:
        raise UserError(f"{source} holds a {name!r} network, expected {', '.join(CONFIG_CLASSES)}")
    for key, value in RELEASED[name].fixed.items():
        if weights.arguments.get(key, value) != value:
            raise UserError(
                f"{source} has {key} {weights.arguments[key]}: the released code has {value}"
            )
    arguments = weights.arguments or {
        "units": len({key.split(".")[1] for key in weights.state if key.startswith("units.")}) or 1
    }
    checkpoint.load_state(build(config_of(name, arguments)), weights.state, source)
    released = {released_key(name, key): tensor for key, tensor in weights.state.items()}
    if name == "danet":
        released = {k: t[..., None, None] if ".conv_du." in k else t for k, t in released.items()}
    return {"module." + key: tensor for key, tensor in _swap_colours(released, name).items()}


def _swap_colours(state: State, name: str) -> State:
    """Swap RGB and BGR in a state dict with released names."""
    axes = dict(RELEASED[name].axes)
    if name == "rescan":  # every gate of the first cell reads the image
        axes |= {k: 1 for k in state if re.match(r"rnns\.0\.conv(_x\w*)?\.weight$", k)}
    return {key: t.flip(axes[key]) if key in axes else t for key, t in state.items()}


def _setting(text: str) -> tuple[str, Any]:
    key, found, value = text.partition("=")
    if not found:
        raise UserError(f"--set: expected NAME=VALUE, got {text}")
    try:
        return key, json.loads(value.lower() if value in ("True", "False") else value)
    except json.JSONDecodeError:
        return key, value


def main(arguments: list[str]) -> None:
    """Run `python -m tools.convert_checkpoint [--back] SOURCE TARGET`."""
    options = tool_options(Options, arguments, "python -m tools.convert_checkpoint", __doc__)
    chosen = dict(_setting(text) for text in options.set)
    refuse_overwriting(options.source, options.target)
    weights = checkpoint.load_weights(options.source)
    if options.back:
        checkpoint.save(options.target, {"net": to_released(weights, options.source)})
    else:
        converted = from_released(weights.state, options.source, chosen)
        checkpoint.save_weights(options.target, converted)
        print(f"{converted.network} {converted.arguments}")
    print(f"written: {options.target}")


if __name__ == "__main__":
    run_command(main)
