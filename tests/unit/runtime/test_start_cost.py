"""The tools load nothing that takes longer to load than the tool takes to run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUNTIME = Path(__file__).parents[3] / "runtime"
COSTLY = {"argparse", "dataclasses", "enum", "json", "pathlib", "re", "subprocess", "typing"}


@pytest.mark.parametrize("tool", ["neuron_ls", "neuron_sim_exec", "nccom_test"])
def test_no_costly_module_is_loaded(tool: str) -> None:
    script = f"import sys; sys.path.insert(0, sys.argv[1]); import neuron_runtime.{tool}; print(*sys.modules)"
    command = [sys.executable, "-ISB", "-c", script, str(RUNTIME)]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert not COSTLY & set(loaded)
