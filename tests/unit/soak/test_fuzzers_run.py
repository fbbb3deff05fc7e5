"""The soak's fuzzers still fit the agent: what runs at night only is broken by day, unseen."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "soak"


@pytest.mark.parametrize("script", ["fuzz_config.py", "fuzz_activity.py", "fuzz_activity_socket.py", "fuzz_group.py"])
def test_a_short_night_finds_nothing(script: str) -> None:
    command = [sys.executable, str(SOAK / script), "--examples", "1000", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
