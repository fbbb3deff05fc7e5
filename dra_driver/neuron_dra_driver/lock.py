"""The node's lock: one prepare or unprepare at a time, also while two agents overlap in a rolling update.

flock, because the kernel lets go of it when its holder is killed, and on the driver's folder itself, so that no file of
its own is left on the node. It is asked for without waiting, over and over:
a process that is stopped while it holds the lock must not also stop this one's event loop and its health answers.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from .errors import LockTimeout
from .files import make_directory


class NodeLock:
    """Excludes tasks of this process and other processes."""

    def __init__(self, directory: Path, *, patience: float = 30.0) -> None:
        self._directory = directory
        self._patience = patience
        self._tasks = asyncio.Lock()
        self._descriptor: int | None = None

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the lock; raises LockTimeout well before the kubelet's own deadline of 45 s."""
        async with self._tasks:
            descriptor = self._open()
            await self._acquire(descriptor)
            try:
                yield
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            make_directory(self._directory)
            self._directory.chmod(0o700)  # who can open it can hold it
            self._descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._descriptor

    async def _acquire(self, descriptor: int) -> None:
        deadline = time.monotonic() + self._patience
        pause = 0.001
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockTimeout(
                        f"another process holds the lock of {self._directory} for more than {self._patience:.0f} s: "
                        "look for a second driver process on the node that hangs"
                    ) from None
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)
