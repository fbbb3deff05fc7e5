"""Prometheus' own programs, which judge the rules, the queries and the pages."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Promtool = Callable[..., str]


def program(name: str) -> str:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # not through hack/promtool, which waits for whoever is at work on the cache
    found = cache / "neuron-sim" / "bin" / name
    if not found.exists():
        pytest.fail(f"this test needs {name}: run `hack/promtool --version` once", pytrace=False)
    return str(found)


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Runs it, and gives what it printed; fails with that when it complains."""
    tool = program("promtool")

    def run(*arguments: str | Path) -> str:
        done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def prometheus() -> str:
    """The server's program."""
    return program("prometheus")
