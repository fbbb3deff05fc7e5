"""The soak's fuzzers and its state machine still fit the agent: what runs at night only is broken by day, unseen."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "soak"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("fuzz_config.py", "--examples", "1000"), id="config"),
        pytest.param(("fuzz_activity.py", "--examples", "1000"), id="activity"),
        pytest.param(("state_machine.py", "--steps", "50"), id="state machine"),
    ],
)
def test_a_short_night_finds_nothing(command: tuple[str, ...]) -> None:
    script, *options = command
    done = subprocess.run(
        [sys.executable, str(SOAK / script), *options, "--seed", "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
