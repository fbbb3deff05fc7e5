"""Which processes run on this container's cores, and what they say they do.

Those that report are told by the agent; a process that owns cores and reports nothing is idle on them; who owns none is
no Neuron application. A process that uses cores of several claims reports to each, and is one here.
"""

# ruff: noqa: PTH119, PTH120, PTH123
from __future__ import annotations

import os

from neuron_runtime import activity, nrt, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from neuron_runtime.activity import Report
    from neuron_runtime.nrt import Core, Given

CORE_MEMORY = ("constants", "model_code", "model_shared_scratchpad", "runtime_memory", "tensors")
HOST_MEMORY = ("application_memory", "constants", "dma_buffers", "tensors")
MODEL_MEMORY = ("constants", "model_code", "runtime_memory", "tensors")
EXECUTIONS = (
    "completed",
    "completed_with_err",
    "completed_with_num_err",
    "timed_out",
    "incorrect_input",
    "failed_to_queue",
)
ERRORS = ("generic", "numerical", "transient", "model", "runtime", "hardware")
PERCENTILES = ("p0", "p1", "p25", "p50", "p75", "p99", "p100")

NOBODY_ANSWERS = "the neuron-sim agent of this node does not answer"


class Process:
    """A Neuron application: its cores, numbered as in the container, and what it says of itself."""

    __slots__ = ("cores", "error", "errors", "executions", "host", "latency", "models", "pid", "tag")

    def __init__(self, pid: int, tag: str) -> None:
        self.pid = pid
        self.tag = tag
        self.cores: dict[int, dict[str, Any]] = {}
        self.host = dict.fromkeys(HOST_MEMORY, 0)
        self.executions = dict.fromkeys(EXECUTIONS, 0)
        self.errors = dict.fromkeys(ERRORS, 0)
        self.latency: dict[str, Any] | None = None
        self.models: list[dict[str, Any]] = []
        self.error = ""

    def add(self, report: Report, numbers: Mapping[str, int]) -> None:
        """What it says about the cores of one request, which `numbers` has by their numbers there."""
        for core, what in report["cores"].items():
            self.cores[numbers[core]] = what
        for mine, name in ((self.host, "host"), (self.executions, "executions"), (self.errors, "errors")):
            for key in mine:
                mine[key] += report[name][key]
        self.latency = self.latency or report["latency"]
        self.models += [{**model, "core": numbers[str(model["core"])]} for model in report["models"]]


def idle_core() -> dict[str, Any]:
    """What is said of a core that nothing runs on."""
    return {"utilization": 0, "flops": 0, "memory": dict.fromkeys(CORE_MEMORY, 0)}


class Observer:
    """Asks again and again, over connections that stay."""

    def __init__(self, given: Given, *, proc_root: str = processes.PROC_ROOT) -> None:
        self._cores: Sequence[Core] = nrt.given_cores(given)
        self._proc_root = proc_root
        self._requests: list[tuple[activity.Connection, dict[str, int]]] = []
        self._devices = _device_numbers(given)
        self._known: dict[int, dict[str, int]] = {}
        for folder, _ in given:
            numbers = {
                os.path.basename(core.path): core.id
                for core in self._cores
                if os.path.dirname(os.path.dirname(core.path)) == folder
            }
            self._requests.append((activity.Connection(folder), numbers))

    def look(self) -> list[Process]:
        """The processes on these cores, in the order of their pids."""
        found: dict[tuple[int, str], Process] = {}
        silent = False
        for place, (connection, numbers) in enumerate(self._requests):
            answer = connection.ask()
            silent = silent or answer is None
            if answer is None:
                continue
            for index, counts in (answer.get("hardware") or {}).items():
                self._known[self._devices[place][index]] = counts
            for report in answer["processes"]:
                key = (report["pid"], report["tag"])
                found.setdefault(key, Process(*key)).add(report, numbers)
        reported = {core for process in found.values() for core in process.cores}
        for pid, cores in self._owners().items():
            idle = [core for core in cores if core not in reported]
            if idle:
                process = found.setdefault((pid, self._tag(pid)), Process(pid, self._tag(pid)))
                process.cores.update({core: idle_core() for core in idle})
                process.error = NOBODY_ANSWERS if silent else ""
        return [found[key] for key in sorted(found)]

    @property
    def ecc(self) -> Mapping[int, Mapping[str, int]]:
        """The ECC counters of each device at the last look, since ever; what is not in it is 0."""
        return self._known

    def close(self) -> None:
        """Look no more."""
        for connection, _ in self._requests:
            connection.close()

    def _owners(self) -> dict[int, list[int]]:
        owners: dict[int, list[int]] = {}
        for core in self._cores:
            for pid in processes.core_owners([core]):
                owners.setdefault(pid, []).append(core.id)
        return owners

    def _tag(self, pid: int) -> str:
        """The process' NEURON_PROCESS_TAG, else its pid."""
        try:
            with open(f"{self._proc_root}/{pid}/environ", "rb") as file:
                return _tag_in(file.read().split(b"\0")) or str(pid)
        except OSError:
            return str(pid)


def _device_numbers(given: Given) -> list[dict[str, int]]:
    """Of each request: the devices' numbers in the container, by those in its view."""
    numbered = iter(nrt.numbered_together([device for _, view in given for device in view["devices"]]))
    return [{str(device["index"]): next(numbered)["index"] for device in view["devices"]} for _, view in given]


def _tag_in(environment: Iterable[bytes]) -> str:
    name = f"{activity.PROCESS_TAG}=".encode()
    tags = [entry[len(name) :] for entry in environment if entry.startswith(name)]
    return tags[0].decode(errors="replace")[:255] if tags else ""
