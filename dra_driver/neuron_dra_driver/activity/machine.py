"""The machine's vCPUs and memory, from /proc, which a container sees as the node has it."""

import os
import time
from pathlib import Path

from .exposition import System

USAGES = ("user", "nice", "system", "idle", "io_wait", "irq", "soft_irq")
"""In the order of /proc/stat."""
FRESH = 1.0
"""Seconds of which a usage is at least, whoever asks how often."""


class Machine:
    """Reads it, and knows what it was a while ago."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._before = self._now = self._ticks()
        self._at = time.monotonic()

    def look(self) -> System:
        """As it is now."""
        if time.monotonic() - self._at >= FRESH:
            self._before, self._now = self._now, self._ticks()
            self._at = time.monotonic()
        passed = [max(now - before, 0) for before, now in zip(self._before, self._now, strict=True)]
        total = sum(passed) or 1
        usage = {name: round(ticks / total, 4) for name, ticks in zip(USAGES, passed, strict=True)}
        return System(vcpus=os.cpu_count() or 1, usage=usage, memory=self._memory())

    def _ticks(self) -> tuple[int, ...]:
        with (self._proc / "stat").open("rb") as file:
            return tuple(int(word) for word in file.readline().split()[1 : len(USAGES) + 1])

    def _memory(self) -> dict[str, int]:
        found = {}
        with (self._proc / "meminfo").open("rb") as file:
            for line in file:
                name, _, rest = line.partition(b":")
                found[name] = int(rest.split()[0]) << 10
        return {
            "memory_total_bytes": found[b"MemTotal"],
            "memory_used_bytes": found[b"MemTotal"] - found[b"MemAvailable"],
            "swap_total_bytes": found[b"SwapTotal"],
            "swap_used_bytes": found[b"SwapTotal"] - found[b"SwapFree"],
        }
