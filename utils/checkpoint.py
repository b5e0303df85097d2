"""Checkpoints of plain tensors, numbers and strings, written atomically.

A run keeps resume states (`latest.pt`, and `previous.pt` before it), which hold everything the next
step needs, and weights (`best.pt`), which hold only the network with its name, arguments and
provenance.
"""

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.files import replacing

WRAPPERS = ("state_dict", "net", "params_ema", "params", "model")
PREFIXES = ("module.", "_orig_mod.")


class Weights(NamedTuple):
    """A network's state dict and what its file says about it."""

    state: dict[str, Tensor]
    network: str | None  # name of the network, None if the file does not contain it
    arguments: dict[str, Any]  # of the network's config
    metadata: dict[str, Any]
    path: Path = Path()
    sha256: str = ""  # of the file

    def describe(self) -> dict[str, Any]:
        """Where the weights come from and which network they are, for JSON files."""
        return {
            "weights": str(self.path),
            "sha256": self.sha256,
            "network": self.network,
            "arguments": self.arguments,
        }


def save(path: Path, payload: dict[str, Any], previous: Path | None = None) -> None:
    """Write `payload` atomically; keep an existing file at `path` under the name `previous`."""
    with replacing(path, previous) as stream:
        torch.save(payload, stream)


def save_weights(path: Path, weights: "Weights") -> None:
    """Write weights as safetensors if `path` has that suffix, else with torch.save."""
    if path.suffix != ".safetensors":
        state = {key: tensor.contiguous() for key, tensor in weights.state.items()}
        about = {key: getattr(weights, key) for key in ("network", "arguments", "metadata")}
        save(path, {"state_dict": state, **about})
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
    """Load a checkpoint to the CPU without executing pickled code.

    Raises:
        UserError: the file is missing, not a checkpoint, or contains other pickled objects.
    """
    return _decode(path, _read(path))


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UserError(
            f"no checkpoint {path}: expected a file, for example runs/NAME/best.pt after training"
        )
    return path.read_bytes()


def _decode(path: Path, data: bytes) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            payload = _decode_safetensors(data)
        else:
            _verify(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # errors are reported below
                payload = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is not a checkpoint of plain tensors: it is damaged or contains "
            "pickled objects, which are not loaded; save only its state_dict()"
        ) from None
    except Exception as error:  # a damaged file can raise almost any exception
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read {path}: damaged or not a checkpoint ({reason})") from None
    if not isinstance(payload, dict):
        raise UserError(f"{path} holds a {type(payload).__name__}, expected a state dict")
    return payload


def _verify(data: bytes) -> None:
    """Compare the checksums in a file of torch.save, which torch.load does not."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if (entry := archive.testzip()) is not None:
                raise ValueError(f"wrong checksum of {entry}")


def _decode_safetensors(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")  # of the header
    about = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return {
        "state_dict": safetensors.torch.load(data),
        "network": about.get("network"),
        "arguments": json.loads(about.get("arguments", "{}")),
        "metadata": json.loads(about.get("metadata", "{}")),
    }


def load_weights(path: Path) -> Weights:
    """Load weights from a file in any common format.

    Accepts a bare state dict or one stored under a key of `WRAPPERS`. Removes the key prefixes
    `module.` (DataParallel) and `_orig_mod.` (torch.compile).

    Raises:
        UserError: as in `load`, or the file contains no tensors.
    """
    data = _read(path)
    payload = _decode(path, data)
    if "optimizer" in payload and "settings" in payload:
        raise UserError(
            f"{path} is the resume state of a run: load its weights, best.pt in the same folder"
        )
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
        path,
        hashlib.sha256(data).hexdigest(),
    )


def _bare(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key


def load_state(network: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Load `state` into `network`, strictly.

    Raises:
        UserError: a key is missing or unexpected, or has another shape; names the first of each.
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
            parts.append(f"has unexpected {_names(unexpected)}")
        if reshaped:
            key = reshaped[0]
            parts.append(
                f"has {key} of shape {list(state[key].shape)}, expected {list(own[key].shape)}"
            )
        raise UserError(
            f"{source} does not fit this {type(network).__name__}: it {'; '.join(parts)}. "
            "Was it trained with another config?"
        )
    network.load_state_dict(state)


def _names(keys: Any) -> str:
    keys = list(keys)
    return f"{keys[0]} and {len(keys) - 1} more" if len(keys) > 1 else str(keys[0] if keys else "")
