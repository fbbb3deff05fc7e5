"""vCPUs and memory of the machine and of processes, from /proc, as neuron-monitor and neuron-top show them."""

# ruff: noqa: PTH123
from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Times = Mapping[str, tuple[int, ...]]

PROC_ROOT = "/proc"
USAGES = ("user", "nice", "system", "idle", "io_wait", "irq", "soft_irq")
"""In the order of /proc/stat."""
IDLE = dict.fromkeys(USAGES, 0.0)


def cpu_times(proc_root: str = PROC_ROOT) -> tuple[Times, int]:
    """The ticks of each vCPU by its number, those of all under an empty name; and the context switches so far."""
    times = {}
    switches = 0
    with open(f"{proc_root}/stat", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(" ")
            if name.startswith("cpu"):
                times[name[3:]] = tuple(int(word) for word in rest.split()[: len(USAGES)])
            elif name == "ctxt":
                switches = int(rest)
    return times, switches


def cpu_usage(before: tuple[int, ...], now: tuple[int, ...]) -> dict[str, float]:
    """Percent of the time between two readings."""
    passed = [max(b - a, 0) for a, b in zip(before, now)]  # noqa: B905 - of one length
    total = sum(passed)
    if not total:
        return dict(IDLE)
    return {usage: round(100 * ticks / total, 2) for usage, ticks in zip(USAGES, passed)}  # noqa: B905


def process_ticks(pid: int, proc_root: str = PROC_ROOT) -> tuple[int, int]:
    """User and system ticks of a process so far; raises OSError."""
    with open(f"{proc_root}/{pid}/stat", "rb") as file:
        # the command may hold blanks and brackets
        words = file.read().rpartition(b")")[2].split()
    return int(words[11]), int(words[12])


def process_usage(before: tuple[int, int], now: tuple[int, int], *, seconds: float) -> dict[str, float]:
    """Percent of all vCPUs that a process used between two readings."""
    available = seconds * os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)
    user, system = (round(100 * max(b - a, 0) / available, 2) for a, b in zip(before, now))  # noqa: B905
    return {"user": user, "system": system}


def memory(proc_root: str = PROC_ROOT) -> dict[str, int]:
    """Bytes of memory and of swap: what there is, and what is used."""
    found = {}
    with open(f"{proc_root}/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            found[name] = int(rest.split()[0]) << 10
    return {
        "memory_total_bytes": found["MemTotal"],
        "memory_used_bytes": found["MemTotal"] - found["MemAvailable"],
        "swap_total_bytes": found["SwapTotal"],
        "swap_used_bytes": found["SwapTotal"] - found["SwapFree"],
    }
