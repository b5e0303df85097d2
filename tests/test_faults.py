"""Runs that are killed, interrupted or damaged lose nothing: see `faults.py`."""

import pytest
from faults import FAULTS, Lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("faults"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost(lab: Lab, fault: str) -> None:
    """The weights after the fault are those of an unbroken run, bit for bit."""
    outcome = FAULTS[fault](lab)
    assert outcome.tried > 0
    assert outcome.survived == outcome.tried, outcome.remark
