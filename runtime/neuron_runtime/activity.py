"""Says what this process does on its NeuronCores, and asks what others do; the agent of the node passes it on.

    with open_cores() as cores, Reporter(cores) as reporter:
        reporter.report({core: {"utilization": 63.5} for core in cores.ids}, executions={"completed": 120})

Containers have this file at /opt/aws/neuron/python-client/neuron_sim_activity.py, for the Python of the user's
image: so it is one file, needs nothing but the standard library, and runs on Python 3.8. The fields: docs/activity.md.

A report holds until the next one and ends with its process, because the kernel then closes the connection. Nobody has
to listen: where no agent does, reports are lost, and the next one tries again. Counts are since the process began, so
nothing is missing afterwards.
"""

# of the user's Python, which may be old
# ruff: noqa: PTH120, PTH119
from __future__ import annotations

import json
import os
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    class OwnCores(Protocol):
        """What `open_cores` of `nrt` gives."""

        @property
        def paths(self) -> Mapping[int, str]:
            """Of each core by its number: the file that stands for it."""

    Report = Mapping[str, Any]

SOCKET = "activity.sock"
PROCESS_TAG = "NEURON_PROCESS_TAG"
PATIENCE = 2.0
"""Seconds that an agent may take for a line."""


class ReportError(ValueError):
    """The agent refused a report; its sentence says why."""


class Reporter:
    """The reports of this process about cores that it owns."""

    def __init__(self, cores: OwnCores, *, tag: str = "") -> None:
        self._tag = tag or os.environ.get(PROCESS_TAG, "")[:255]
        places: dict[str, dict[int, str]] = {}
        for core_id, path in sorted(cores.paths.items()):
            folder = os.path.dirname(os.path.dirname(path))
            places.setdefault(folder, {})[core_id] = os.path.basename(path)
        self._places = [(Connection(folder), numbers) for folder, numbers in sorted(places.items())]
        self._times = os.times()
        self._began = time.time()

    def report(self, cores: Mapping[int, Report], *, models: Sequence[Report] = (), **process: object) -> bool:
        """Say what each core does now, and what is loaded; the other fields are of the process.

        Whether somebody listens. Raises ReportError when an earlier report was refused.
        """
        process.setdefault("vcpu", self._vcpu_usage())
        heard = True
        for place, (connection, numbers) in enumerate(self._places):
            report: dict[str, object] = {
                "pid": os.getpid(),
                "tag": self._tag,
                "began": self._began,
                "cores": {numbers[core_id]: what for core_id, what in cores.items() if core_id in numbers},
                "models": [{**one, "core": int(numbers[one["core"]])} for one in models if one["core"] in numbers],
            }
            # what is of the process, and not of a core, is said once
            report.update({} if place else process)
            heard = connection.send(report) and heard
        return heard

    def _vcpu_usage(self) -> Report:
        """Percent of all vCPUs since the report before."""
        before, self._times = self._times, os.times()
        percent = max(self._times.elapsed - before.elapsed, 0.01) * (os.cpu_count() or 1) / 100
        spent = {"user": self._times.user - before.user, "system": self._times.system - before.system}
        return {name: round(min(seconds / percent, 100.0), 2) for name, seconds in spent.items()}

    def close(self) -> None:
        """Nothing more to say: these cores are idle."""
        for connection, _ in self._places:
            connection.close()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Connection:
    """A connection to the agent about the cores of one claim's request; made when it is needed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._socket: socket.socket | None = None

    def send(self, message: Report) -> bool:
        """Write a line; false when nobody listens. Raises ReportError when an earlier line was refused."""
        self._hear_refusal()
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        for _ in (1, 2):  # the agent may have been replaced since the last line
            try:
                if self._socket is None:
                    self._socket = connect(self._folder)
                self._socket.sendall(line)
                return True
            except OSError:
                self.close()
        return False

    def ask(self) -> Mapping[str, Any] | None:
        """The reports of all `processes` on these cores, and the ECC counters of the devices (`hardware`).

        None when nobody answers.
        """
        if not self.send({"ask": "activity"}) or self._socket is None:
            return None
        answer = bytearray()
        try:
            while not answer.endswith(b"\n"):
                part = self._socket.recv(1 << 16)
                if not part:
                    raise ConnectionError
                answer += part
            found: dict[str, Any] = json.loads(answer)
            return found if "processes" in found else None
        except (OSError, ValueError):
            self.close()
            return None

    def close(self) -> None:
        """End it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _hear_refusal(self) -> None:
        if self._socket is None:
            return
        try:
            said = self._socket.recv(1 << 12, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self.close()
        if said:
            raise ReportError(json.loads(said)["error"])


def connect(folder: str) -> socket.socket:
    """A connection to the agent's socket in a request's folder; raises OSError.

    By the folder's descriptor, because the path of a folder may be longer than an address.
    """
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(f"/proc/self/fd/{directory}/{SOCKET}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection
