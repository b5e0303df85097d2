"""Faults that need whole processes, in short; `python -m tools.faults` tries all of them longer."""

import pytest

from tools.faults import FAULTS, Lab, Options


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("faults"), Options(kills=2, steps=40))


@pytest.mark.parametrize("fault", ["kill-9", "ctrl-c", "full-disk", "rank-killed"])
def test_nothing_is_lost(lab: Lab, fault: str) -> None:
    """The weights after the fault are those of an unbroken run, bit for bit."""
    outcome = FAULTS[fault](lab)
    assert outcome.tried > 0
    assert outcome.survived == outcome.tried, outcome.remark
