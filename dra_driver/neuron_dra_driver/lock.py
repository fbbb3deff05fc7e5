"""The node's lock: one prepare or unprepare at a time, also while two agents overlap in a rolling update.

flock, because the kernel lets go of it when its holder is killed, and on the driver's folder itself, so that no file of
its own is left on the node. It is asked for without waiting, over and over:
a process that is stopped while it holds the lock must not also stop this one's event loop and its health answers.
"""

import asyncio
import fcntl
import os
import time
from pathlib import Path
from typing import Self

from .errors import LockTimeout
from .files import make_directory


class NodeLock:
    """Excludes tasks of this process and other processes."""

    def __init__(self, directory: Path, *, patience: float = 30.0) -> None:
        self._directory = directory
        self._patience = patience
        self._tasks = asyncio.Lock()
        self._descriptor: int | None = None

    def held(self) -> Self:
        """Hold the lock; raises LockTimeout well before the kubelet's own deadline of 45 s."""
        return self

    async def __aenter__(self) -> None:
        await self._tasks.acquire()
        try:
            await self._acquire(self._open())
        except BaseException:
            self._tasks.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._descriptor is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        finally:
            self._tasks.release()

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
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise LockTimeout(
                    f"another process holds the lock of {self._directory} for more than {self._patience:.0f} s: "
                    "look for a second driver process on the node that hangs"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
