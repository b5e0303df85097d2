"""Checkpoints: plain tensors, numbers and strings, written whole or not at all.

A run keeps two files. Resume state (`latest.pt`) is everything the next step needs. Weights
(`best.pt`) are the network alone, with its name, arguments and provenance.
"""

import os
import pickle
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from utils.errors import UserError

WRAPPERS = ("state_dict", "net", "params_ema", "params", "model")
PREFIXES = ("module.", "_orig_mod.")


class Weights(NamedTuple):
    """A network's parameters and what the file says about them."""

    state: dict[str, Tensor]
    network: str | None  # name in models.NETWORKS, None where the file does not say
    arguments: dict[str, Any]  # of the network's constructor
    metadata: dict[str, Any]


def save(path: Path, payload: dict[str, Any]) -> None:
    """Write `payload` to a temporary name, flush it to disk, and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as stream:
        torch.save(payload, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


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
            payload = load_file(path)
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


def load_weights(path: Path) -> Weights:
    """Read weights in any of the common shapes.

    Bare state dicts, and those under `net`, `state_dict`, `params`, `params_ema` or `model`; keys
    with `module.` (DataParallel) or `_orig_mod.` (torch.compile) before them.

    Raises:
        UserError: as `load`, or no tensors are found.
    """
    payload = load(path)
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
        network if isinstance(network, str) else None,
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
