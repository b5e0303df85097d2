"""The networks in other Python programs: Derainer and torch.hub, as documented."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hubconf
from models import Derainer, load_network
from utils.image import read_image, write_image

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "weights" / "jdnet-small-real.safetensors"


def example(section: str) -> str:
    """The Python code of a section of docs/python.md."""
    text = (ROOT / "docs" / "python.md").read_text().split(f"\n## {section}\n")[1]
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def test_three_lines_derain_a_photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = example("Python")
    assert sum(bool(line) for line in code.splitlines()) == 3
    assert code in (ROOT / "README.md").read_text()
    rainy = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    write_image(tmp_path / "photo.jpg", rainy)
    (tmp_path / "weights").symlink_to(WEIGHTS.parent)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    expected = Derainer(load_network(WEIGHTS))(read_image(tmp_path / "photo.jpg"))
    assert np.array_equal(read_image(tmp_path / "derained.png"), expected)


@pytest.mark.slow
def test_hub_loads_the_network_from_any_folder(tmp_path: Path) -> None:
    code = example("torch.hub").replace("PATH_OF_THIS_REPOSITORY", str(ROOT))
    assert str(ROOT) in code
    code += f"""
assert derained.shape == (1, 3, 64, 96) and not network.training
light = torch.hub.load({str(ROOT)!r}, "jdnet_small", source="local", weights="rain100l")
torch.save({{"real": network.state_dict(), "rain100l": light.state_dict()}}, "states.pt")
"""
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for name, state in torch.load(tmp_path / "states.pt", weights_only=True).items():
        expected = load_network(WEIGHTS.with_name(f"jdnet-small-{name}.safetensors")).state_dict()
        assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert [name for name in dir(hubconf) if callable(getattr(hubconf, name))] == ["jdnet_small"]
