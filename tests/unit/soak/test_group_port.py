"""The soak test of the group's ports, for as long as a unit test may take."""

import runpy
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "soak/fuzz_group.py"


def test_strangers_at_the_ports_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert runpy.run_path(str(FUZZ))["main"](["--examples", "600", "--seed", "5"]) == 0
    assert "600 messages" in capsys.readouterr().out
