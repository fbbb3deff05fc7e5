"""Opens NeuronCores for this process, as the Neuron runtime does: a core has one owner, and it is a process.

    with open_cores() as cores:  # as NEURON_RT_VISIBLE_CORES and NEURON_RT_NUM_CORES say; all without either
        print(cores.ids)

Containers have this file at /opt/aws/neuron/python-client/neuron_sim_nrt.py, for the Python of the user's image: so it
is one file, needs nothing but the standard library, and runs on Python 3.8.

The real driver keeps the owner's pid of each core under one mutex, and forgets it when that process ends. The
same, with the kernel's locks alone, so that no daemon has to be alive and nothing has to be cleaned up: the node agent
lays one file per core beside the view, ``cores/<number of the core>``, and to own a core is to hold a POSIX lock on
its file. Such a lock belongs to the process: it outlives exec, children do not inherit it, it ends with the process
however that ends, and the kernel names its holder. It is a read lock, since the files are read-only in containers; so
nobody takes one without looking first, and the look and the locking are one step under an flock on the folder.
Whatever containers share a claim have the same files, and so the same owners.

What makes this delicate: a process loses its lock when it closes any descriptor of the file. Hence a file whose lock
this process holds is not opened a second time, or not closed.
"""

# of the user's Python, which may be old; and pathlib's import takes longer than all of this module's work
# ruff: noqa: PTH110, PTH119, PTH120, PTH123, PTH208
from __future__ import annotations

import fcntl
import os
import sys
import time
from _thread import get_native_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any

    # the type is the writer's; its module is not in the containers
    from neuron_device_model.view import DeviceView, View

    Given = Sequence[tuple[str, View]]
    Fault = Mapping[str, Any]

RUN_ROOT = "/run/neuron-sim"
SCHEMA = 1

VISIBLE_CORES = "NEURON_RT_VISIBLE_CORES"
NUM_CORES = "NEURON_RT_NUM_CORES"

NRT_FAILURE = 1
NRT_INVALID = 2
NRT_RESOURCE = 4
# AWS's src/libnrt/include/nrt/nrt_status.h
_STATUS_NAMES = {
    NRT_FAILURE: "NRT_FAILURE",
    NRT_INVALID: "NRT_INVALID",
    NRT_RESOURCE: "NRT_RESOURCE",
    5: "NRT_TIMEOUT",
    1200: "NRT_EXEC_HW_ERR_COLLECTIVES",
    1201: "NRT_EXEC_HW_ERR_HBM_UE",
    1202: "NRT_EXEC_HW_ERR_NC_UE",
    1203: "NRT_EXEC_HW_ERR_DMA_ABORT",
    1205: "NRT_EXEC_HW_ERR_REPAIRABLE_HBM_UE",
}
FAULTS = "faults.json"

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MOST_DIGITS = 6
# the low numbers are what shells and daemons redirect and close
_FIRST_INHERITED_DESCRIPTOR = 512
# fcntl.F_OFD_GETLK, which Python knows since 3.9. Unlike F_GETLK it tells of this process's own locks, too
_F_OFD_GETLK = 36


class ViewError(Exception):
    """A view is there but cannot be used; the message says why and what to do."""


class NrtError(RuntimeError):
    """What the runtime refuses: its status code, and the place and the words of its log."""

    def __init__(self, status: int, place: str, words: str) -> None:
        super().__init__(f"NRT Error {_STATUS_NAMES.get(status, 'NRT_FAILURE')}({status}): {words}")
        self.status = status
        self.place = place
        self.words = words

    def log_line(self) -> str:
        """The line as the runtime writes it to the console."""
        now = time.time()
        t = time.localtime(now)
        stamp = f"{t.tm_year}-{_MONTHS[t.tm_mon - 1]}-{t.tm_mday:02} {t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
        component, _, function = self.place.partition(":")
        return (
            f"{stamp}.{int(now % 1 * 1000):04} {os.getpid():>5}:{get_native_id():<5} "
            f"{'ERROR':>5}{component:>6}:{function:<40}{self.words}"
        )


class Core:
    """A core that this container was given: its number, its device's number, and the file that stands for it."""

    __slots__ = ("device", "id", "path")

    def __init__(self, core_id: int, device: int, path: str) -> None:
        self.id = core_id
        self.device = device
        self.path = path


class Request:
    """Which cores a process wants: `count` neighbours among these, or all of these where that is None."""

    __slots__ = ("among", "count", "named")

    def __init__(self, among: Sequence[int], *, count: int | None, named: bool = False) -> None:
        self.among = among
        self.count = count
        self.named = named

    def __str__(self) -> str:
        """As the runtime names it in its log."""
        if self.named:
            return f"nc{self.among[0]}-nc{self.among[-1]}"
        return str(len(self.among) if self.count is None else self.count)


class Cores:
    """Cores that this process owns until `close`, the end of a `with` block, or its own end."""

    __slots__ = ("_files", "ids", "paths")

    def __init__(self, files: Mapping[int, tuple[str, int]]) -> None:
        self.ids = tuple(sorted(files))
        self.paths = {core_id: path for core_id, (path, _) in files.items()}
        self._files = dict(files.values())
        for path in self._files:
            _held[path] = self

    def check(self) -> None:
        """What nrt_execute would do on these cores now: nothing, or raise NrtError where hardware is broken."""
        for core, fault in faults_of(self.paths.values()):
            if fault["status"]:
                raise _failure(fault, core)

    def close(self) -> None:
        """Give the cores back. Does nothing when that was done, or in a process forked from the owner."""
        for path, fd in self._files.items():
            if _held.get(path) is self:
                os.close(fd)
                del _held[path]

    def __enter__(self) -> Cores:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<NeuronCores {core_list(self.ids)}>"


_held: dict[str, Cores] = {}
# what this process owned before exec, and some process before it opened
_inherited: dict[str, int] = {}
_runtime: list[Cores] = []


def open_cores(count: int | None = None, *, run_root: str = RUN_ROOT) -> Cores:
    """Own the cores that the environment names, or `count` of them.

    Raises NrtError, and writes what the runtime would to stderr, when they cannot all be had; then none is.
    """
    try:
        return open_given(given_cores(given_views(run_root)), count=count, environment=os.environ)
    except ViewError as error:
        refusal = NrtError(NRT_FAILURE, "NRT:nrt_init", str(error))
        _log(refusal)
        raise refusal from error
    except NrtError as refusal:
        _log(refusal)
        raise


def nrt_init() -> Cores:
    """As libnrt's: own the cores that the environment names. A process that did so before gets the same."""
    if not _runtime:
        _runtime.append(open_cores())
    return _runtime[0]


def nrt_close() -> None:
    """As libnrt's: give back what nrt_init took."""
    while _runtime:
        _runtime.pop().close()


def open_given(
    given: Sequence[Core], *, count: int | None, environment: Mapping[str, str], inheritable: bool = False
) -> Cores:
    """Own some of these cores; `inheritable` lets what this process executes own them on. Raises NrtError."""
    if not given:
        raise NrtError(NRT_FAILURE, "TDRV:tdrv_get_dev_info", "No neuron device available")
    paths = {core.id: core.path for core in given}
    request = requested(environment, count=count, given=sorted(paths))
    folders = sorted({os.path.dirname(paths[core_id]) for core_id in request.among})
    turns: list[int] = []
    files: dict[int, tuple[str, int]] = {}
    try:
        # in one order for all, or two processes could wait for one another
        for folder in folders:
            turns.append(os.open(folder, os.O_RDONLY))
            fcntl.flock(turns[-1], fcntl.LOCK_EX)
        free = [core_id for core_id in request.among if _is_free(paths[core_id])]
        wanted = chosen(request, free=free)
        for core, fault in faults_of([paths[core_id] for core_id in wanted]):
            if fault["at_open"]:
                raise _failure(fault, core)
        for core_id in wanted:
            files[core_id] = (paths[core_id], _lock(paths[core_id], inheritable=inheritable))
        return Cores(files)
    except OSError as error:
        for _, fd in files.values():
            os.close(fd)
        raise NrtError(
            NRT_FAILURE,
            "NRT:nrt_allocate_neuron_cores",
            f"{error}: start the pod anew, its node lays a readable file for each of its cores",
        ) from error
    finally:
        for turn in turns:
            # closing is not enough where another thread forked just now
            fcntl.flock(turn, fcntl.LOCK_UN)
            os.close(turn)


def faults_of(paths: Iterable[str]) -> list[tuple[str, Fault]]:
    """What is broken of cores, by the paths of their files: each fault with the first of them that it hits.

    The agent says so beside the view, by the cores' numbers there.
    """
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(os.path.dirname(os.path.dirname(path)), []).append(os.path.basename(path))
    found = []
    for folder, cores in sorted(by_folder.items()):
        for fault in given_faults(folder):
            hit = [core for core in sorted(cores, key=int) if core in fault["cores"]]
            # a link is only used by who has cores at both of its ends
            devices = {fault["cores"][core][0] for core in hit}
            if len(devices) >= (2 if "link" in fault else 1):
                found.append((hit[0], fault))
    return found


def given_faults(folder: str, *, parse: Callable[[str], Any] | None = None) -> Sequence[Fault]:
    """What is broken of what a request was given; nothing where the agent wrote no such file, or another's."""
    try:
        with open(f"{folder}/{FAULTS}", encoding="utf-8") as file:
            text = file.read()
        if parse is None:
            import json

            parse = json.loads
        found = parse(text)
    except (OSError, ValueError):
        return []
    faults: Sequence[Fault] = found["faults"] if found.get("schema") == SCHEMA else []
    return faults


def _failure(fault: Fault, core: str) -> NrtError:
    device, number = fault["cores"][core]
    words = fault["words"].replace("{nd}", str(device)).replace("{nc}", str(number))
    return NrtError(fault["status"], fault["place"], words)


def owner_of(fd: int) -> int | None:
    """The pid of the process that owns a core, by a descriptor of its file: 0 if it has none here, None if nobody."""
    # struct flock on 64 bits: type, whence, start, length, pid. Of a write lock, which conflicts with any other
    question = fcntl.F_WRLCK.to_bytes(2, sys.byteorder) + bytes(30)
    answer: bytes = fcntl.fcntl(fd, _F_OFD_GETLK, question)
    if int.from_bytes(answer[:2], sys.byteorder) == fcntl.F_UNLCK:
        return None
    return int.from_bytes(answer[24:28], sys.byteorder)


def _is_free(path: str) -> bool:
    if path in _held:
        return False
    fd = _inherited.pop(path, -1)
    if fd < 0:
        fd = os.open(path, os.O_RDONLY)
    owner = owner_of(fd)
    if owner == os.getpid():
        _inherited[path] = fd
        return True
    os.close(fd)
    return owner is None


def _lock(path: str, *, inheritable: bool) -> int:
    fd = _inherited.pop(path, -1)
    if fd < 0:
        fd = os.open(path, os.O_RDONLY)
    if inheritable:
        try:
            high = fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_INHERITED_DESCRIPTOR)
        except OSError:
            os.set_inheritable(fd, True)  # the process may not have so many
        else:
            os.close(fd)
            fd = high
    fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return fd


def _forget_in_child() -> None:
    """A forked child owns nothing. Were its copies closed later, it could lose what it opened by itself by then."""
    for cores in set(_held.values()):
        for fd in cores._files.values():
            os.close(fd)
    for fd in _inherited.values():
        os.close(fd)
    _held.clear()
    _inherited.clear()
    _runtime.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def requested(environment: Mapping[str, str], *, count: int | None, given: Sequence[int]) -> Request:
    """What a process asks for, of the core numbers given to it, in ascending order. Raises NrtError."""
    if count is not None and count < 0:
        raise _invalid(f"{count} cores: give how many, 0 means all")
    visible = environment.get(VISIBLE_CORES, "").strip()
    if visible:
        among = _named(visible, given)
        return Request(among, count=count or None, named=not count)
    if count is None:
        wanted = environment.get(NUM_CORES, "").strip() or "0"
        if not _is_number(wanted):
            raise _invalid(f"{NUM_CORES}={wanted}: give a number of cores, 0 means all")
        count = int(wanted)
    return Request(given, count=count or None)


def chosen(request: Request, *, free: Collection[int]) -> Sequence[int]:
    """The cores that a request gets when these are free: all or none. Raises NrtError in the runtime's words."""
    place = "NRT:nrt_allocate_neuron_cores"
    runs = _runs(core_id for core_id in request.among if core_id in free)
    if request.count is None:
        if sum(map(len, runs)) == len(request.among):
            return request.among
    else:
        # the driver takes the first that fits
        for run in runs:
            if len(run) >= request.count:
                return run[: request.count]
        longest_ever = max(map(len, _runs(request.among)))
        if longest_ever < request.count <= len(request.among):
            raise NrtError(NRT_INVALID, place, "Neuron cores are not contiguous")
    available = max(map(len, runs), default=0)
    words = f"NeuronCore(s) not available - Requested:{request} Available:{available}"
    raise NrtError(NRT_FAILURE, place, words)


def parse_core_list(text: str) -> Sequence[range]:
    """The ranges of a list like ``0,2-3``. Raises ValueError."""
    ranges = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        last = last if dash else first
        if not _is_number(first) or not _is_number(last) or int(first) > int(last):
            raise ValueError(f"{part.strip()!r} is neither a core nor a range of cores")
        ranges.append(range(int(first), int(last) + 1))
    return ranges


def core_list(ids: Iterable[int]) -> str:
    """Core numbers as NEURON_RT_VISIBLE_CORES and the tools write them: ``0,2-3``."""
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in _runs(ids))


def _named(text: str, given: Sequence[int]) -> Sequence[int]:
    try:
        ranges = parse_core_list(text)
    except ValueError as error:
        raise _invalid(f"{VISIBLE_CORES}={text}: {error}: write it like 3, 0-2 or 0,2-3") from error
    # the length first: nobody should wait for the numbers of 0-999999
    known = set(given)
    if any(len(part) > len(known) or not known.issuperset(part) for part in ranges):
        raise _invalid(f"{VISIBLE_CORES}={text}: name cores of this container, which has {core_list(given)}")
    return sorted({core_id for part in ranges for core_id in part})


def _runs(ids: Iterable[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for core_id in sorted(ids):
        if runs and runs[-1][-1] == core_id - 1:
            runs[-1].append(core_id)
        else:
            runs.append([core_id])
    return runs


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _invalid(words: str) -> NrtError:
    return NrtError(NRT_INVALID, "NRT:nrt_init", words)


def _log(error: NrtError) -> None:
    if sys.stderr is not None:
        print(error.log_line(), file=sys.stderr, flush=True)


def given_cores(given: Given) -> Sequence[Core]:
    """The cores of these folders' views, numbered as in the container."""
    as_written = [(folder, device) for folder, view in given for device in view["devices"]]
    numbered = numbered_together([device for _, device in as_written])
    cores = []
    for place, (folder, device) in enumerate(as_written):
        for position, core_id in enumerate(numbered[place]["core_ids"]):
            path = f"{folder}/cores/{device['core_ids'][position]}"
            cores.append(Core(core_id, numbered[place]["index"], path))
    return cores


def numbered_together(devices: Sequence[DeviceView]) -> Sequence[DeviceView]:
    """The devices of several views: their numbers as given where no two are equal, else numbered in order."""
    if len({device["index"] for device in devices}) == len(devices):
        return devices
    numbered = []
    next_core = 0
    for index, device in enumerate(devices):
        copy = device.copy()
        copy["index"] = index
        copy["core_ids"] = list(range(next_core, next_core + device["core_count"]))
        next_core += device["core_count"]
        numbered.append(copy)
    return numbered


def given_views(run_root: str = RUN_ROOT, *, parse: Callable[[str], Any] | None = None) -> Given:
    """The folders ``<run root>/<claim uid>/<request>`` that have a view, in the order of their names, and the views.

    Raises ViewError where one cannot be read, or it cannot be known which there are.
    """
    if parse is None:
        import json

        parse = json.loads
    given = []
    for claim in _names(run_root):
        for request in _names(f"{run_root}/{claim}"):
            folder = f"{run_root}/{claim}/{request}"
            if os.path.exists(f"{folder}/view.json"):
                given.append((folder, _load(f"{folder}/view.json", parse)))
    return given


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ViewError(f"{error}: the node agent must leave its views readable to every user") from error


def _load(path: str, parse: Callable[[str], Any]) -> View:
    try:
        with open(path, encoding="utf-8") as file:
            view: View = parse(file.read())
        schema = view["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ViewError(
            f"{path}: not a readable view ({error}): start the pod anew, its node writes it again"
        ) from error
    if schema != SCHEMA:
        raise ViewError(
            f"{path}: schema {schema}, these tools read schema {SCHEMA}: "
            "start the pod anew, so that its tools and its node are of one neuron-sim version"
        )
    return view
