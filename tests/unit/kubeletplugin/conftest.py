"""Fixtures of the kubelet-plugin library's tests; the fakes are modules of this folder."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dra_fake_kubelet import FakeKubelet


@pytest.fixture
def host() -> Iterator[Path]:
    """A kubelet's folder; directly under /tmp because a socket's path ends at 107 bytes."""
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="kp"))
    (root / "plugins").mkdir()
    (root / "registry").mkdir()
    yield root
    shutil.rmtree(root)


@pytest.fixture
async def kubelet(host: Path) -> AsyncIterator[FakeKubelet]:
    kubelet = FakeKubelet(host / "registry")
    yield kubelet
    await kubelet.stop()
