"""Reading and writing valid and invalid checkpoints."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from config.networks import JDNetConfig
from models import JDNet
from utils import checkpoint
from utils.errors import UserError


@pytest.fixture
def network() -> JDNet:
    torch.manual_seed(0)
    return JDNet(JDNetConfig(units=1, channels=16))


@pytest.mark.parametrize("wrapper", [None, *checkpoint.WRAPPERS])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_common_formats(tmp_path: Path, network: JDNet, wrapper: str | None, prefix: str) -> None:
    state = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pt")
    weights = checkpoint.load_weights(tmp_path / "w.pt")
    other = JDNet(JDNetConfig(units=1, channels=16))
    checkpoint.load_state(other, weights.state, tmp_path / "w.pt")
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_safetensors(tmp_path: Path, network: JDNet) -> None:
    save_file(network.state_dict(), tmp_path / "bare.safetensors")
    bare = checkpoint.load_weights(tmp_path / "bare.safetensors")
    assert set(bare.state) == set(network.state_dict())
    assert bare.network is None

    whole = checkpoint.Weights(network.state_dict(), "jdnet", {"units": 1}, {"data": "Rain100L"})
    checkpoint.save_weights(tmp_path / "w.safetensors", whole)
    weights = checkpoint.load_weights(tmp_path / "w.safetensors")
    assert weights[1:4] == whole[1:4]
    assert all(torch.equal(weights.state[key], whole.state[key]) for key in whole.state)


def test_save_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pt"
    checkpoint.save(path, {"step": 1})

    def torn(payload: object, stream: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(UserError, match=r"cannot write .*w.pt: disk full"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["w.pt"]


class Foreign:
    """Any object other than tensors, numbers and strings."""


def test_files_that_are_not_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint .*missing.pt: expected a file"):
        checkpoint.load(tmp_path / "missing.pt")
    torch.save({"net": Foreign()}, tmp_path / "foreign.pt")
    with pytest.raises(UserError, match=r"foreign.pt is not a checkpoint of plain tensors"):
        checkpoint.load(tmp_path / "foreign.pt")
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(Foreign()))
    with pytest.raises(UserError, match=r"raw.pkl is not a checkpoint of plain tensors"):
        checkpoint.load(tmp_path / "raw.pkl")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match=r"text.pt"):
        checkpoint.load(tmp_path / "text.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(UserError, match=r"empty.pt"):
        checkpoint.load(tmp_path / "empty.pt")
    (tmp_path / "bad.safetensors").write_text("hello")
    with pytest.raises(UserError, match=r"cannot read .*bad.safetensors"):
        checkpoint.load(tmp_path / "bad.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"holds a list, expected a state dict"):
        checkpoint.load(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    with pytest.raises(UserError, match=r"holds no tensors: .*got epoch"):
        checkpoint.load_weights(tmp_path / "numbers.pt")


def test_truncated_checkpoint(tmp_path: Path, network: JDNet) -> None:
    path = tmp_path / "cut.pt"
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"cut.pt") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_mismatches_name_the_first_key(network: JDNet) -> None:
    source = Path("w.pt")
    larger = JDNet(JDNetConfig(units=2, channels=16)).state_dict()
    with pytest.raises(UserError, match=r"w.pt does not fit this JDNet: it has unexpected units.1"):
        checkpoint.load_state(network, larger, source)
    with pytest.raises(UserError, match=r"lacks units.1.* more\. Was it trained with another"):
        checkpoint.load_state(
            JDNet(JDNetConfig(units=2, channels=16)), network.state_dict(), source
        )
    wider = JDNet(JDNetConfig(units=1, channels=32)).state_dict()
    with pytest.raises(
        UserError, match=r"head.weight of shape \[32, 3, 3, 3\], expected \[16, 3, 3, 3"
    ):
        checkpoint.load_state(network, wider, source)
