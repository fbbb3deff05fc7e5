"""Where the processes of a job over several pods meet: from flags and environment. Pure but for the hosts' file."""

from __future__ import annotations

import os

from neuron_runtime.nccom import files
from neuron_runtime.nccom.group import Meeting
from neuron_runtime.nccom.membership import PROTOCOL, Hello
from neuron_runtime.nccom.streams import PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    from neuron_device_model.view import View

    from neuron_runtime.nccom.claims import Place

ROOT_COMM_ID = "NEURON_RT_ROOT_COMM_ID"
EXEC_TIMEOUT = "NEURON_RT_EXEC_TIMEOUT"
JOIN_TIMEOUT = "NEURON_SIM_JOIN_TIMEOUT"
_FINGERPRINTS = (1 << 127) - 1


def meeting(flags: Namespace, environment: Mapping[str, str]) -> Meeting:
    """Where a job of several nodes meets. Raises PlanError and FileError."""
    root = environment.get(ROOT_COMM_ID, "")
    host, _, port = root.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise PlanError(f"{ROOT_COMM_ID}={root}: set it to <address of the first host>:<free port> for several nodes")
    order = hosts(flags, environment)
    if order and len(order) != flags.nnodes:
        raise PlanError(f"{len(order)} hosts for {flags.nnodes} nodes: name as many hosts as --nnodes says")
    defaults = Meeting("", 0)
    return Meeting(
        host.strip("[]"),
        int(port),
        order,
        _seconds(environment, JOIN_TIMEOUT, defaults.join_seconds),
        _seconds(environment, EXEC_TIMEOUT, defaults.silence_seconds),
    )


def hosts(flags: Namespace, environment: Mapping[str, str]) -> Sequence[str]:
    """The hosts of the command line, or of a file. Raises FileError."""
    if flags.hosts:
        return list(flags.hosts)
    if flags.hosts_file:
        return files.hosts(flags.hosts_file)
    usual = f"{environment.get('HOME', '')}/hosts"
    return files.hosts(usual) if os.path.isfile(usual) else ()  # noqa: PTH113


def hello(job: object, view: View, place: Place, *, host: str, processes: int, seed: int | None = None) -> Hello:
    """What this process says of itself. `job`: what has to be the same in all; its fingerprint is sent."""
    return Hello(
        host,
        f"{PROTOCOL} (runtime {view['runtime_version']})",
        f"{int.from_bytes(repr(job).encode(), 'little') % _FINGERPRINTS:032x}",
        seed,
        processes,
        place,
    )


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 100_000:
        raise PlanError(f"{name}={text}: give whole seconds")
    return float(text)
