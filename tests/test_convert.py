"""Conversion of released checkpoints to our format and back."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from config.networks import JDNetConfig, PReNetConfig
from models import DCSFN, RESCAN, DANet, JDNet, Network, PReNet, load_network
from models.registry import build, config_of
from tools import convert_checkpoint
from tools.convert_checkpoint import _rename
from utils import checkpoint
from utils.checkpoint import Weights
from utils.errors import UserError

SMALL: dict[str, tuple[type[Network], dict[str, Any]]] = {
    "jdnet": (JDNet, {"units": 2}),
    "jdnet-r1": (JDNet, {"units": 1, "self_attention": False, "self_calibration": False}),
    "jdnet-r2": (JDNet, {"units": 1, "channels": 16, "scales": 2, "self_attention": False}),
    "dcsfn": (DCSFN, {"units": 1, "channels": 4}),
    "dcsfn-rnn": (DCSFN, {"units": 2, "channels": 4, "cell": "rnn"}),
    "danet": (DANet, {"channels": 16, "blocks": 2}),
    "prenet": (PReNet, {"channels": 8}),
    "prenet-gru": (PReNet, {"channels": 8, "recurrence": "gru"}),
    "prn_r": (PReNet, {"channels": 8, "recurrence": "none", "shared_blocks": True}),
    "prenet-x": (PReNet, {"channels": 8, "rainy_input": False}),
    "rescan": (RESCAN, {"channels": 8}),
    "rescan-lstm": (RESCAN, {"channels": 8, "cell": "lstm", "depth": 5}),
    "rescan-rnn": (RESCAN, {"channels": 8, "cell": "rnn"}),
    "rescan-conv": (RESCAN, {"channels": 8, "cell": "conv"}),
}


@pytest.mark.parametrize("case", SMALL)
def test_there_and_back(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The converted network computes on RGB what the released one computes on RGB or BGR."""
    kind, arguments = SMALL[case]
    name = kind.__name__.lower()
    torch.manual_seed(0)
    ours = build(config_of(name, arguments)).eval()
    weights = Weights(ours.state_dict(), name, arguments, {})
    checkpoint.save_weights(tmp_path / "ours.safetensors", weights)
    target = tmp_path / "latest_net"
    convert_checkpoint.main(["--back", str(tmp_path / "ours.safetensors"), str(target)])
    released = checkpoint.load(target)["net"]
    assert all(key.startswith("module.") for key in released)

    image = torch.rand(1, 3, 40, 36)
    with torch.inference_mode():
        expected = ours(image)
        # The released network: our code with the released tensors, colours not swapped.
        plain = build(config_of(name, arguments)).eval()
        bare = {key.removeprefix("module."): t for key, t in released.items()}
        plain.load_state_dict(_rename(plain, name, bare))
        bgr = name in ("jdnet", "dcsfn", "rescan")
        output = plain(image.flip(1)).flip(1) if bgr else plain(image)
        torch.testing.assert_close(output, expected)

        again = tmp_path / "again.safetensors"
        convert_checkpoint.main([str(target), str(again)])
        converted = load_network(again)
        assert torch.equal(converted(image), expected)
    assert "written" in capsys.readouterr().out


def test_what_the_tensors_do_not_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    arguments = {"stages": 4, "channels": 8, "recurrence_last": True, "global_residual": False}
    real = PReNet(PReNetConfig(**arguments))  # type: ignore[arg-type]
    checkpoint.save_weights(tmp_path / "a.pt", Weights(real.state_dict(), "prenet", arguments, {}))
    convert_checkpoint.main(["--back", str(tmp_path / "a.pt"), str(tmp_path / "released.pth")])
    flags = ["stages=4", "recurrence_last=true", "global_residual=false"]
    command = [str(tmp_path / "released.pth"), str(tmp_path / "b.pt"), "--set"]
    convert_checkpoint.main([*command, *flags])
    shown = checkpoint.load_weights(tmp_path / "b.pt").arguments
    assert {key: shown[key] for key in arguments} == arguments
    with pytest.raises(UserError, match=r"--set: prenet has no wings"):
        convert_checkpoint.main([*command, "wings=2"])
    with pytest.raises(UserError, match=r"expected NAME=VALUE, got wings"):
        convert_checkpoint.main([*command, "wings"])
    with pytest.raises(UserError, match=r"global_residual must be of the type of True, got 0"):
        convert_checkpoint.main([*command, "global_residual=0"])
    with pytest.raises(UserError, match=r"--stages must be positive"):
        convert_checkpoint.main([*command, "stages=0"])
    convert_checkpoint.main([*command, "stages=4", "global_residual=False"])  # as in Python
    assert checkpoint.load_weights(tmp_path / "b.pt").arguments["global_residual"] is False
    capsys.readouterr()


def test_strictness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def convert(*names: str) -> None:
        convert_checkpoint.main([n if n == "--back" else str(tmp_path / n) for n in names])

    torch.save(JDNet(JDNetConfig(units=1)).state_dict(), tmp_path / "ours")
    message = r"is not a released network .*enterBlock.0.weight.*got head"
    with pytest.raises(UserError, match=message):
        convert("ours", "x")
    convert("--back", "ours", "released")
    with pytest.raises(UserError, match=r"does not fit this JDNet"):
        convert("--back", "released", "x")

    payload = checkpoint.load(tmp_path / "released")
    payload["net"]["module.extra.weight"] = torch.zeros(1)
    checkpoint.save(tmp_path / "extra", payload)
    with pytest.raises(UserError, match=r"has unexpected extra.weight"):
        convert("extra", "x")
    del payload["net"]["module.extra.weight"], payload["net"]["module.exitBlock.0.bias"]
    checkpoint.save(tmp_path / "short", payload)
    with pytest.raises(UserError, match=r"lacks tail.bias"):
        convert("short", "x")

    state = JDNet(JDNetConfig(units=1)).state_dict()
    torch.save({**state, "foo": torch.zeros(1)}, tmp_path / "more")
    with pytest.raises(UserError, match="has unexpected foo"):
        convert("--back", "more", "x")
    del state["tail.bias"]
    torch.save(state, tmp_path / "less")
    with pytest.raises(UserError, match=r"lacks tail.bias"):
        convert("--back", "less", "x")
    other = Weights(
        JDNet(JDNetConfig(units=1)).state_dict(), "jdnet", {"units": 1, "position": "patch"}, {}
    )
    checkpoint.save_weights(tmp_path / "patch", other)
    with pytest.raises(
        UserError, match=re.escape("has position patch: the released code has image")
    ):
        convert("--back", "patch", "x")
    assert not (tmp_path / "x").exists()
    capsys.readouterr()
