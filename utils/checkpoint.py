"""Checkpoints: plain tensors, numbers and strings, written whole or not at all.

A run keeps two files. Resume state (`latest.pt`) is everything the next step needs. Weights
(`best.pt`) are the network alone, with its name, arguments and provenance.
"""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.files import replacing

WRAPPERS = ("state_dict", "net", "params_ema", "params", "model")
PREFIXES = ("module.", "_orig_mod.")


class Weights(NamedTuple):
    """A network's parameters and what the file says about them."""

    state: dict[str, Tensor]
    network: str | None  # its name, None where the file does not say
    arguments: dict[str, Any]  # of the network's constructor
    metadata: dict[str, Any]


def save(path: Path, payload: dict[str, Any]) -> None:
    """Write `payload`, whole or not at all."""
    with replacing(path) as stream:
        torch.save(payload, stream)


def save_weights(path: Path, weights: "Weights") -> None:
    """Write weights: a safetensors file with metadata by that suffix, else a torch one."""
    if path.suffix != ".safetensors":
        payload = weights._asdict()
        save(path, {"state_dict": payload.pop("state"), **payload})
        return
    about = {
        "network": weights.network or "",
        "arguments": json.dumps(weights.arguments),
        "metadata": json.dumps(weights.metadata),
    }
    state = {key: tensor.clone().contiguous() for key, tensor in weights.state.items()}
    with replacing(path) as stream:
        stream.write(safetensors.torch.save(state, about))


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU without running any code that it may carry.

    Raises:
        UserError: the file is missing, no checkpoint, or a pickle of foreign objects.
    """
    if not path.is_file():
        raise UserError(
            f"no checkpoint {path}: train one with train.py or name another with --weights"
        )
    try:
        if path.suffix == ".safetensors":
            payload = _load_safetensors(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is wrong with a file is said below
                payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is not a checkpoint of plain tensors: it is damaged or would run foreign "
            "code when read; save its state_dict() alone where it was made"
        ) from None
    except Exception as error:  # a damaged file fails in as many ways as it can be read
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read {path}: not a whole checkpoint ({reason})") from None
    if not isinstance(payload, dict):
        raise UserError(f"{path} holds a {type(payload).__name__}, expected a state dict")
    return payload


def _load_safetensors(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return {
        "state_dict": state,
        "network": about.get("network"),
        "arguments": json.loads(about.get("arguments", "{}")),
        "metadata": json.loads(about.get("metadata", "{}")),
    }


def load_weights(path: Path) -> Weights:
    """Read weights in any of the common shapes.

    Bare state dicts, and those under `net`, `state_dict`, `params`, `params_ema` or `model`; keys
    with `module.` (DataParallel) or `_orig_mod.` (torch.compile) before them.

    Raises:
        UserError: as `load`, or no tensors are found.
    """
    payload = load(path)
    if "optimizer" in payload and "settings" in payload:
        raise UserError(f"{path} is the resume state of a run: its weights are best.pt beside it")
    state: Any = payload
    for wrapper in WRAPPERS:
        if isinstance(payload.get(wrapper), dict):
            state = payload[wrapper]
            break
    tensors = {_bare(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors: expected a state dict, got {_names(payload)}")
    network = payload.get("network")
    return Weights(
        tensors,
        network if isinstance(network, str) and network else None,
        payload.get("arguments", {}),
        payload.get("metadata", {}),
    )


def _bare(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key


def load_state(network: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Copy `state` into `network`, strictly.

    Raises:
        UserError: a key is missing, unexpected or of another shape; the first of each is named.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    reshaped = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected or reshaped:
        parts = []
        if missing:
            parts.append(f"lacks {_names(missing)}")
        if unexpected:
            parts.append(f"has the unknown {_names(unexpected)}")
        if reshaped:
            key = reshaped[0]
            parts.append(f"{key} is {list(state[key].shape)} there and {list(own[key].shape)} here")
        raise UserError(
            f"{source} does not fit this {type(network).__name__}: it {'; '.join(parts)}. "
            "Was it trained with another config?"
        )
    network.load_state_dict(state)


def _names(keys: Any) -> str:
    keys = list(keys)
    return f"{keys[0]} and {len(keys) - 1} more" if len(keys) > 1 else str(keys[0] if keys else "")
