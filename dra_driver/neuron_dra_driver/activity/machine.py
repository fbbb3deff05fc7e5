"""The machine's vCPUs and memory, from /proc, which a container sees as the node has it."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from .exposition import System

TICKS = ("user", "nice", "system", "idle", "io_wait", "irq", "soft_irq")
"""In the order of /proc/stat."""
USAGES: Mapping[str, tuple[str, ...]] = {"user": ("user", "nice"), "system": ("system", "io_wait", "irq", "soft_irq")}
"""What AWS's script adds up to its two usages; its dashboard takes their sum for how busy a node is. None is idle."""
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
        changes = zip(TICKS, self._before, self._now, strict=True)
        passed = {name: max(now - before, 0) for name, before, now in changes}
        total = sum(passed.values()) or 1
        usage = {name: round(sum(passed[part] for part in parts) / total, 4) for name, parts in USAGES.items()}
        return System(vcpus=os.cpu_count() or 1, usage=usage, memory=self._memory())

    def _ticks(self) -> tuple[int, ...]:
        with (self._proc / "stat").open("rb") as file:
            return tuple(int(word) for word in file.readline().split()[1 : len(TICKS) + 1])

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
