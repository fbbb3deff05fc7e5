"""Fixtures of the device-plugin library's tests; the fake kubelet is a module of this folder."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from device_plugin_fake_kubelet import FakeKubelet


@pytest.fixture
def folder() -> Iterator[Path]:
    """A kubelet's folder; directly under /tmp because a socket's path ends at 107 bytes."""
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="dp"))
    yield root
    shutil.rmtree(root)


@pytest.fixture
async def kubelet(folder: Path) -> AsyncIterator[FakeKubelet]:
    kubelet = FakeKubelet(folder)
    await kubelet.start()
    yield kubelet
    await kubelet.stop()
