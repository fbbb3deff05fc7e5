"""Which processes hold a Neuron device, and which of them are Neuron runtimes.

The real tool asks the kernel driver. Here a process holds a device when it owns cores of it or has ``/dev/neuronN``
open, and it is a Neuron runtime when it owns cores or has mapped ``libnrt.so``, the library every framework reaches
the device through. The kernel names the owner of a core, whoever asks; the rest comes from /proc as this container
sees it: processes end while they are looked at and those of other users may be closed to us, so whatever cannot be
read is left out. So are owners in another container, which have no pid here.
"""

# pathlib's import takes longer than all of this module's work
# ruff: noqa: PTH115, PTH123, PTH208
from __future__ import annotations

import os

from neuron_runtime import nrt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    Holders = Mapping[int, Sequence["Process"]]

PROC_ROOT = "/proc"
FOREIGN = "NA"
_DEVICE_PATH = "/dev/neuron"
_OWN_INTERPRETER = "/opt/aws/neuron/"


class Process:
    """One process that holds at least one device."""

    __slots__ = ("command", "pid", "runtime_version")

    def __init__(self, *, pid: int, command: str, runtime_version: str) -> None:
        self.pid = pid
        self.command = command
        self.runtime_version = runtime_version


def hold(devices: Iterable[int], *, dev_root: str) -> None:
    """Open the devices until this process ends, as every Neuron tool does that reads from them."""
    for device in devices:
        try:
            os.open(f"{dev_root}/neuron{device}", os.O_RDONLY)
        except OSError:
            continue


def core_owners(cores: Iterable[nrt.Core]) -> dict[int, set[int]]:
    """The devices of which each pid owns cores."""
    owners: dict[int, set[int]] = {}
    for core in cores:
        try:
            fd = os.open(core.path, os.O_RDONLY)
        except OSError:
            continue  # a claim that was prepared before there were such files
        pid = nrt.owner_of(fd)
        os.close(fd)
        if pid:
            owners.setdefault(pid, set()).add(core.device)
    return owners


def device_holders(
    *,
    owners: Mapping[int, Collection[int]],
    runtime_version: str,
    include_foreign: bool,
    proc_root: str = PROC_ROOT,
) -> dict[int, list[Process]]:
    """The processes that hold each device number, in the order of their pids.

    Foreign processes are those that are no Neuron runtime: monitors, or a shell that opened the file.
    """
    holders: dict[int, list[Process]] = {}
    for pid in sorted({int(name) for name in _names(proc_root) if name.isdigit()} | set(owners)):
        root = f"{proc_root}/{pid}"
        devices = _open_devices(root).union(owners.get(pid, ()))
        if not devices:
            continue
        is_runtime = pid in owners or b"/libnrt.so" in _read(f"{root}/maps")
        if is_runtime or include_foreign:
            process = Process(
                pid=pid,
                command=command_line(_read(f"{root}/cmdline")),
                runtime_version=runtime_version if is_runtime else FOREIGN,
            )
            for device in devices:
                holders.setdefault(device, []).append(process)
    return holders


def command_line(cmdline: bytes) -> str:
    """The command as it was typed: our own tools run under an interpreter that nobody asked for."""
    words = cmdline.decode(errors="replace").rstrip("\0").split("\0")
    if words[0].startswith(_OWN_INTERPRETER):
        script = next((i for i, word in enumerate(words) if i and not word.startswith("-")), 0)
        words = [words[script].rpartition("/")[2], *words[script + 1 :]]
    return " ".join(words)


def _open_devices(process_root: str) -> set[int]:
    devices = set()
    for fd in _names(f"{process_root}/fd"):
        try:
            target = os.readlink(f"{process_root}/fd/{fd}")
        except OSError:
            continue
        number = target.removeprefix(_DEVICE_PATH)
        if number != target and number.isdigit():
            devices.add(int(number))
    return devices


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
