"""ONNX files give the outputs of PyTorch, at any size."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_hub import example
from torch import Tensor

from config.networks import JDNetConfig, PReNetConfig
from models import JDNet, PReNet
from tools import export_onnx
from utils.errors import UserError
from utils.image import read_image, write_image

# Sizes at which ONNX's own nearest-neighbour up-sampling takes other pixels than PyTorch.
UNEVEN = (114, 171)


@pytest.fixture(scope="module")
def network() -> JDNet:
    """A JDNet whose every branch moves the output by more than the tolerance."""
    torch.manual_seed(0)
    network = JDNet(JDNetConfig(units=2, channels=16, scales=2)).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("weight") and parameter.dim() == 4:
            parameter.data *= 2
    return network


@pytest.fixture(scope="module")
def model(network: JDNet) -> bytes:
    return export_onnx.export(network)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (47, 33), UNEVEN])
def test_onnx_is_pytorch_at_any_size(network: JDNet, model: bytes, size: tuple[int, int]) -> None:
    assert export_onnx.difference(network, model, [size]) < 1e-5
    assert str(Path.cwd()).encode() not in model


@pytest.mark.slow
def test_the_documented_lines_run_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: JDNet, model: bytes
) -> None:
    code = example("ONNX")
    assert sum(bool(line) for line in code.splitlines()) <= 10
    rainy = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    write_image(tmp_path / "photo.jpg", rainy)
    (tmp_path / "jdnet.onnx").write_bytes(model)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    pixels = torch.from_numpy(read_image(Path("photo.jpg"))).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        expected = network(pixels[None])[0].clamp(0, 1).mul(255).permute(1, 2, 0)
    assert np.abs(read_image(Path("derained.png")) - expected.numpy()).max() < 0.51


def test_portable_jdnet_is_jdnet() -> None:
    """With the other position term, and without attention and self-calibration (R1)."""
    torch.manual_seed(0)
    rainy = torch.rand(1, 3, 33, 20)
    for network in (
        JDNet(JDNetConfig(units=2, channels=16, position="patch")).eval(),
        JDNet(
            JDNetConfig(units=2, channels=16, self_attention=False, self_calibration=False)
        ).eval(),
    ):
        with torch.inference_mode():
            portable = export_onnx.PortableJDNet(network)(rainy)
            torch.testing.assert_close(portable, network(rainy), rtol=0, atol=1e-5)


class OneSize(PReNet):
    """Its forward specializes on the width."""

    def forward(self, rainy: Tensor) -> Tensor:
        return rainy + torch.linspace(0, 1, rainy.shape[3])


@pytest.mark.slow
def test_a_network_of_one_size_is_refused() -> None:
    """torch.onnx.export says nothing, and fixes the size."""
    network = OneSize(PReNetConfig(stages=1, channels=4)).eval()
    with pytest.raises(UserError, match="torch cannot export OneSize for images of any size"):
        export_onnx.export(network)


@pytest.mark.slow
def test_a_file_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: bytes
) -> None:
    target = tmp_path / "jdnet.onnx"
    with pytest.raises(UserError, match=r"expected NAME\.onnx, got .*jdnet\.pb"):
        export_onnx.main([str(target.with_suffix(".pb"))])
    monkeypatch.setattr(export_onnx, "export", lambda _: model)  # of another network
    with pytest.raises(UserError, match=r"is off by .*: nothing was written"):
        export_onnx.main([str(target)])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"no onnxruntime: pip install -r requirements-dev\.txt"):
        export_onnx.main([str(target)])
    assert not target.exists()
    monkeypatch.undo()
    monkeypatch.setattr(export_onnx, "export", lambda _: model)
    monkeypatch.setattr(export_onnx, "difference", lambda *_: 0.0)
    export_onnx.main([str(target)])
    assert target.read_bytes() == model
