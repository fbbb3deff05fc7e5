"""``neuron-monitor``: prints a line of JSON whenever a metric group is due, until it is told to end.

What covers a time, as a usage or a count, is in the second record of its group for the first time; what is so at a
moment, as memory, in the first. AWS docs: tools/neuron-sys-tools/neuron-monitor-user-guide.rst.
"""

# ruff: noqa: PTH123
from __future__ import annotations

import os
import signal
import sys
import time

from neuron_runtime import host_counters, json_text, monitor_config, monitor_record, nrt, processes, views
from neuron_runtime.observed import Observer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from neuron_device_model.view import View

    from neuron_runtime.monitor_config import Config
    from neuron_runtime.observed import Process

    Key = tuple[int, str]

USAGE = """\
Usage:
  neuron-monitor [OPTIONS]

Application Options:
      --verbose=      Verbosity of what is written to stderr, 0 to 4 (default: 0)
  -c, --config-file=  Path to a neuron-monitor JSON configuration file

Help Options:
  -h, --help          Show this help message
"""
_AT_ONCE = ("memory_info", "memory_used")


class UsageError(Exception):
    """The command line is wrong; the message is printed."""


def main() -> None:
    """Run on this process's arguments."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    os._exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], *, run_root: str = nrt.RUN_ROOT) -> int:
    """Print records until nobody reads them; the exit status."""
    try:
        path = parse_arguments(arguments)
    except UsageError as error:
        _write(1, f"{error}\n")
        return 1
    if path == "-h":
        _write(1, USAGE)
        return 0
    try:
        config = monitor_config.DEFAULT if path is None else _read(path)
        monitor = Monitor(config, run_root=run_root)
    except (OSError, monitor_config.ConfigError, nrt.ViewError) as error:
        _write(2, f"neuron-monitor: {path + ': ' if path else ''}{error}\n")
        return 1
    try:
        while True:
            rest = monitor.due() - time.monotonic()
            if rest > 0:
                time.sleep(rest)
            _write(1, json_text.compact(monitor.record()) + "\n")
    except BrokenPipeError:
        return 0


def parse_arguments(arguments: Sequence[str]) -> str | None:
    """The configuration file's path, None without one, `-h` to ask for help; raises UsageError."""
    path = None
    rest = list(arguments)
    while rest:
        option, has_value, value = rest.pop(0).partition("=")
        if option in ("-h", "--help"):
            return "-h"
        if option not in ("-c", "--config-file", "--verbose"):
            raise UsageError(f"unknown flag `{option.lstrip('-')}'")
        if not has_value:
            if not rest:
                raise UsageError(f"expected argument for flag `{option}'")
            value = rest.pop(0)
        if option != "--verbose":
            path = value
        elif value not in ("0", "1", "2", "3", "4"):
            raise UsageError(f"invalid argument for flag `--verbose': {value}: give 0 to 4")
    return path


def _read(path: str) -> Config:
    with open(path, encoding="utf-8") as file:
        return monitor_config.parse(file.read())


class Clock:
    """When a group is due, and since when the next record of it counts."""

    __slots__ = ("due", "period", "since")

    def __init__(self, period: float, now: float) -> None:
        self.period = period
        self.since = now
        self.due = now

    def tick(self, now: float) -> float:
        """The seconds that have passed. It is due again after a period, however late it was read."""
        passed, self.since = now - self.since, now
        self.due += self.period
        if self.due <= now:
            self.due = now + self.period
        return passed


class Monitor:
    """Collects the groups that are due, and remembers what the next record is compared with."""

    def __init__(self, config: Config, *, run_root: str = nrt.RUN_ROOT, proc_root: str = processes.PROC_ROOT) -> None:
        now = time.monotonic()
        self._given = views.given(run_root)
        self._config = config
        self._proc_root = proc_root
        self._observer = Observer(self._given, proc_root=proc_root)
        self._view = views.merge([view for _, view in self._given])
        """All that the container was given."""
        self._ecc: dict[int, dict[str, int]] = {}
        """The counters as they were told last."""
        self._system = {kind: Clock(period, now) for kind, period in config.system.items()}
        self._runtimes = [{kind: Clock(period, now) for kind, period in one.groups.items()} for one in config.runtimes]
        self._first = True
        self._cpu = host_counters.cpu_times(proc_root)
        self._executed: dict[Key, Process] = {}
        """Each process as it was when its executions were counted last."""
        self._ticks: dict[Key, tuple[int, int]] = {}

    def close(self) -> None:
        """Collect no more."""
        self._observer.close()

    def due(self) -> float:
        """When the next group is due, by the monotonic clock; in an hour where nothing is asked for."""
        return min((clock.due for clock in self._clocks()), default=time.monotonic() + 3600)

    def record(self) -> dict[str, Any]:
        """The record of the groups that are due now."""
        now = time.monotonic()
        system = {kind: clock.tick(now) for kind, clock in self._system.items() if clock.due <= now}
        runtimes = [
            {kind: clock.tick(now) for kind, clock in clocks.items() if clock.due <= now} for clocks in self._runtimes
        ]
        first, self._first = self._first, False
        looks = first or any(runtimes) or "neuron_hw_counters" in system
        found = self._observer.look() if looks else []
        # devices may be lost, and come back
        there = views.merge([view for _, view in views.visible(self._given)])
        if first:
            self._ecc = {device: dict(counts) for device, counts in self._observer.ecc.items()}
        return monitor_record.record(
            runtimes=list(self._entries(found, runtimes, first=first)) if first or any(runtimes) else [],
            system=dict(self._system_groups(system, there, first=first)),
            view=there,
        )

    def _clocks(self) -> Iterable[Clock]:
        yield from self._system.values()
        for clocks in self._runtimes:
            yield from clocks.values()

    def _entries(
        self, found: Sequence[Process], runtimes: Sequence[dict[str, float]], *, first: bool
    ) -> Iterator[dict[str, Any]]:
        counted = {}
        for process in found:
            key = (process.pid, process.tag)
            matched = self._config.runtime(process.tag)
            passed = runtimes[matched[0]] if matched else {}
            groups = {
                kind: self._runtime_group(kind, process, seconds)
                for kind, seconds in passed.items()
                if not first or kind in _AT_ONCE
            }
            if first or "execution_stats" in passed:
                counted[key] = process
            elif key in self._executed:
                counted[key] = self._executed[key]
            if groups:
                yield monitor_record.runtime(process, groups)
        if first or any(runtimes):
            self._executed = counted
            self._ticks = {key: ticks for key, ticks in self._ticks.items() if key in counted}

    def _runtime_group(self, kind: str, process: Process, seconds: float) -> dict[str, Any]:
        assert self._view is not None, "there are processes on its cores"
        if kind == "neuron_runtime_vcpu_usage":
            return self._vcpu_usage(process, seconds)
        if kind == "execution_stats":
            before = self._executed.get((process.pid, process.tag))
            return monitor_record.group(seconds, monitor_record.execution_stats(process, before))
        if kind == "memory_used":
            return monitor_record.group(seconds, monitor_record.memory_used(process, self._view))
        return monitor_record.group(seconds, monitor_record.neuroncore_counters(process, self._view))

    def _vcpu_usage(self, process: Process, seconds: float) -> dict[str, Any]:
        key, usage, error = (process.pid, process.tag), {"user": 0.0, "system": 0.0}, ""
        try:
            now = host_counters.process_ticks(process.pid, self._proc_root)
            usage = host_counters.process_usage(self._ticks.get(key, now), now, seconds=seconds)
            self._ticks[key] = now
        except OSError as failed:
            # in Go's words, as in a capture
            reason = os.strerror(failed.errno or 0).lower()
            error = f"open /proc/{process.pid}/stat: {reason}"
        return monitor_record.group(seconds, {"vcpu_usage": usage}, error)

    def _system_groups(
        self, passed: dict[str, float], there: View | None, *, first: bool
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for kind, seconds in passed.items():
            if first and kind not in _AT_ONCE:
                continue
            if kind == "memory_info":
                fields: dict[str, Any] = dict(host_counters.memory(self._proc_root))
            elif kind == "neuron_hw_counters":
                fields = monitor_record.hardware_counters(there, self._observer.ecc, self._ecc)
                self._ecc = {device: dict(counts) for device, counts in self._observer.ecc.items()}
            else:
                fields = self._system_vcpu()
            yield kind, monitor_record.group(seconds, fields)

    def _system_vcpu(self) -> dict[str, Any]:
        (before, switches), self._cpu = self._cpu, host_counters.cpu_times(self._proc_root)
        now, switches_now = self._cpu
        usage = {name: host_counters.cpu_usage(before[name], ticks) for name, ticks in now.items() if name in before}
        average = usage.pop("", host_counters.IDLE)
        return {
            "average_usage": average,
            "usage_data": usage,
            "context_switch_count": switches_now - switches,
        }


def _write(fd: int, text: str) -> None:
    data = text.encode(errors="replace")
    while data:
        data = data[os.write(fd, data) :]
