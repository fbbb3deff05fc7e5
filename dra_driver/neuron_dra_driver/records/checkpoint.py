r"""Which claims are prepared on this node: an append-only journal that survives kills, reboots and bad disks.

The file `checkpoint.jsonl` begins with a header line, `{"kind":"neuron-sim-checkpoint","version":1}`. Every other
line is the CRC-32 of the rest of the line, a blank, and a record: `{"op":"put","uid":…,…}` or
`{"op":"del","uid":…}`. The checksum covers bytes and not re-serialised fields, so a later version may add fields, and
what this version does not know survives compaction, which copies lines. A record is on disk (fdatasync) before the
kubelet gets its answer; appending is half the price of writing a new file.

A last line without an end is one that was never answered, because its writer was killed: it is cut off silently.
Anything else that is wrong (also an empty file, or a newer version) puts the file aside under another name, which the
log and the NeuronNode's status tell, and begins a new one. The claims in use are then found again by their CDI files.

Two processes overlap in a rolling update: all methods are called under the node's lock, and `refresh` comes first,
which reads what the other one appended, and everything when it replaced the file. `by_others` is told of both.

Every put has a number of its own, by chance, which is in its line. So whoever looked at an entry, waited, and looks
again knows whether it is the same put, also when the file was replaced meanwhile. Lines of earlier agents have none:
they are other puts each time they are read, and are then left alone until the next look.
"""

import contextlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias
from zlib import crc32

import orjson

from ..errors import DiskError
from ..files import make_directory, remove, sync_directory, temporary, write_all, write_atomically
from .holdings import WHOLE_CHIP, Cores, HeldDevice, Holdings

FILE_NAME = "checkpoint.jsonl"
KIND = "neuron-sim-checkpoint"
VERSION = 1

log = logging.getLogger(__name__)


Origin: TypeAlias = Literal["claim", "device-plugin"]
"""By which road something is given away."""

_CHIP = re.compile(r"neuron-device-([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Entry:
    """A prepared claim."""

    uid: str
    namespace: str
    name: str
    devices: tuple[HeldDevice, ...]
    runtime: str
    """Which runtime tree its containers have mounted."""
    origin: Origin = "claim"
    kubelet_ids: tuple[str, ...] = ()
    """By which ids the kubelet knows what it has given; on the device-plugin road they need not be the devices' own."""
    former: tuple[tuple[str, str], ...] = ()
    """Requests, each with a device that the kubelet was told of before the claim was prepared anew with others."""
    serial: int = field(default=0, compare=False)
    """Which put this is: tells whether a claim was prepared again since one looked."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def as_record(self) -> dict[str, Any]:
        """As written; `entry_of` reads it."""
        return {
            "uid": self.uid,
            "namespace": self.namespace,
            "name": self.name,
            "devices": [
                {
                    "request": d.request,
                    "pool": d.pool,
                    "device": d.device,
                    "adminAccess": d.admin_access,
                    "cores": d.cores,
                    "logicalNeuronCore": d.logical_neuron_core,
                }
                for d in self.devices
            ],
            "runtime": self.runtime,
            "origin": self.origin,
        } | {key: value for key, value in (("kubeletIDs", self.kubelet_ids), ("former", self.former)) if value}


def entry_of(record: Mapping[str, Any]) -> Entry:
    """Read what `Entry.as_record` gave; raises KeyError, TypeError or AttributeError when it is something else."""
    return Entry(
        uid=record["uid"],
        namespace=record["namespace"],
        name=record["name"],
        devices=tuple(
            HeldDevice(
                request=device["request"],
                pool=device["pool"],
                device=device["device"],
                admin_access=device.get("adminAccess", False),
                cores=_cores(device),
                logical_neuron_core=device.get("logicalNeuronCore", 0),
            )
            for device in record["devices"]
        ),
        runtime=record.get("runtime", ""),
        origin=record.get("origin", "claim"),
        kubelet_ids=tuple(record.get("kubeletIDs", ())),
        former=tuple((request, device) for request, device in record.get("former", ())),
        serial=record.get("serial", 0),
    )


def _cores(device: Mapping[str, Any]) -> Cores:
    """The cores of a record's device. Agents that did not write them gave away whole chips only."""
    if "cores" not in device:
        chip = _CHIP.fullmatch(device["device"])
        return ((int(chip[1]), WHOLE_CHIP),) if chip else ()
    cores = [tuple(pair) for pair in device["cores"]]
    if any([type(number) for number in pair] != [int, int] for pair in cores):
        raise TypeError("cores are pairs of numbers")
    return tuple((chip, mask) for chip, mask in cores)


class _Unreadable(Exception):
    """The file is not a journal that this version can read; `trace` says under which name to keep it."""

    def __init__(self, trace: str, reason: str) -> None:
        super().__init__(reason)
        self.trace = trace


class Checkpoint:
    """The journal of one node's driver, in a directory of its own. See the module."""

    def __init__(self, directory: Path, *, compact_after: int = 1024) -> None:
        self.path = directory / FILE_NAME
        self._name = str(self.path)
        self._compact_after = compact_after
        self._entries: dict[str, Entry] = {}
        self.holdings = Holdings()
        self.by_others: Callable[[str | None], None] = lambda uid: None
        """Called in a refresh with the uid of each record of another process; None: it may have written anything."""
        self._lines: dict[str, bytes] = {}
        self._descriptor: int | None = None
        self._identity = (0, 0)
        self._size = 0
        self._garbage = 0

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The prepared claims by uid, as of the last refresh and what was written since."""
        return self._entries

    def quarantined(self) -> list[Path]:
        """The files that were put aside; a person removes them."""
        aside = (f"{FILE_NAME}.corrupt-", f"{FILE_NAME}.newer-")
        try:
            names = os.listdir(self.path.parent)  # noqa: PTH208 - asked for after every call, and globbing is slow
        except OSError:
            return []
        return [self.path.with_name(name) for name in sorted(names) if name.startswith(aside)]

    def refresh(self) -> bool:
        """Read what others wrote; true when that meant to begin from the start of a file."""
        try:
            try:
                found = os.stat(self._name)  # noqa: PTH116 - asked for in every call
            except FileNotFoundError:
                self._begin_empty()
                return True
            if self._descriptor is None or (found.st_dev, found.st_ino) != self._identity or found.st_size < self._size:
                sync_directory(self.path.parent)  # who made the file may have been killed before that
                self._load()
                return True
            if found.st_size > self._size:
                for uid in self._replay():
                    self.by_others(uid)
        except OSError as error:
            raise DiskError(self.path, error) from error
        except _Unreadable as problem:
            self._quarantine(problem)
            return True
        return False

    def put(self, entry: Entry) -> None:
        """Note that a claim is prepared; on disk when this returns."""
        entry = replace(entry, serial=_new_serial())
        line = self._append({"op": "put", **entry.as_record(), "serial": entry.serial})
        self._put(entry, line)

    def delete(self, uid: str) -> None:
        """Note that a claim is not prepared any more; on disk when this returns."""
        self._append({"op": "del", "uid": uid})
        self._delete(uid)
        if self._garbage > self._compact_after and self._garbage > 4 * len(self._entries):
            try:
                self._begin(b"".join(self._lines.values()))
            except DiskError as error:
                if self._replaced():
                    self.close()  # what is appended to a file without a name is lost
                    raise
                # The record is written; a disk that is too full for a second file is no reason to fail.
                log.warning("the checkpoint keeps growing: %s", error)

    def discard(self) -> None:
        """Leave nothing on a node that holds no claim; the folder goes too, unless another agent's socket is in it."""
        assert not self._entries, "there are claims to remember"
        self.close()
        remove(self.path)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, record: Mapping[str, Any]) -> bytes:
        line = _line(record)
        try:
            if self._descriptor is None:
                raise OSError("it has to be read again first")
            try:
                write_all(self._descriptor, line)
                os.fdatasync(self._descriptor)
            except OSError:
                # Half a line that more lines follow would look like a damaged file.
                try:
                    os.ftruncate(self._descriptor, self._size)
                except OSError:
                    self.close()
                raise
        except OSError as error:
            raise DiskError(self.path, error) from error
        self._size += len(line)
        return line

    def _begin(self, lines: bytes) -> None:
        """Write a new file with the records that are known, and go on with it."""
        make_directory(self.path.parent)
        content = b"%s\n%s" % (orjson.dumps({"kind": KIND, "version": VERSION}), lines)
        write_atomically(self.path, content, sync=True)
        try:
            self._open()
        except OSError as error:
            raise DiskError(self.path, error) from error
        self._size, self._garbage = len(content), 0

    def _begin_empty(self) -> None:
        self._forget()
        self._begin(b"")

    def _load(self) -> None:
        self._forget()
        self._open()
        self._replay()
        with contextlib.suppress(FileNotFoundError):
            temporary(self.path).unlink()

    def _open(self) -> None:
        self.close()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        found = os.fstat(self._descriptor)
        self._identity = (found.st_dev, found.st_ino)

    def _forget(self) -> None:
        """Know nothing, and not what others did either."""
        self._size = self._garbage = 0
        self._entries, self._lines = {}, {}
        self.holdings.clear()
        self.by_others(None)

    def _replaced(self) -> bool:
        """Whether the file under our name is not the open one."""
        try:
            found = self.path.stat()
        except OSError:
            return True
        return self._descriptor is None or (found.st_dev, found.st_ino) != self._identity

    def _replay(self) -> list[str]:
        """Read from where the last reading ended; the uids of the records."""
        assert self._descriptor is not None
        content = b""
        while chunk := os.pread(self._descriptor, 1 << 20, self._size + len(content)):
            content += chunk
        whole, end, torn = content.rpartition(b"\n")
        lines = (whole + end).splitlines(keepends=True)
        if self._size == 0:
            if not lines:
                raise _Unreadable("corrupt", "it has no header" if torn else "it is empty")
            _check_header(lines.pop(0))
        uids = [self._take(line) for line in lines]
        self._size += len(whole) + len(end)
        if torn:
            log.warning("the last record of %s was cut off by a kill; dropped", self.path)
            os.ftruncate(self._descriptor, self._size)
        if content:
            # Whoever wrote it may have been killed before it was on disk, and what is answered from now on is by it.
            os.fdatasync(self._descriptor)
        return uids

    def _take(self, line: bytes) -> str:
        """Apply one record; its uid."""
        record = _record(line)
        try:
            uid: str = record["uid"]
            if record["op"] == "put":
                entry = entry_of(record)
                self._put(entry if entry.serial else replace(entry, serial=_new_serial()), line)
            elif record["op"] == "del":
                self._delete(uid)
            else:
                raise _Unreadable("corrupt", f"unknown operation {record['op']!r}")
            return uid
        except (KeyError, TypeError, AttributeError) as error:
            raise _Unreadable("corrupt", f"a record lacks what this version needs ({error!r})") from error

    def _put(self, entry: Entry, line: bytes) -> None:
        self._garbage += entry.uid in self._entries
        self._entries[entry.uid] = entry
        self._lines[entry.uid] = line
        self.holdings.put(entry.uid, entry.devices)

    def _delete(self, uid: str) -> None:
        self._garbage += 1 + (self._entries.pop(uid, None) is not None)
        self._lines.pop(uid, None)
        self.holdings.drop(uid)

    def _quarantine(self, problem: _Unreadable) -> None:
        """Put the file aside and begin a new one."""
        self.close()
        try:
            aside = _free_name(self.path, problem.trace)
            self.path.rename(aside)
            sync_directory(self.path.parent)
        except OSError as error:
            raise DiskError(self.path, error) from error
        log.error(
            "checkpoint %s cannot be read: %s; put aside as %s, claims in use are found again by their CDI files",
            self.path, problem, aside.name,
        )  # fmt: skip
        self._begin_empty()


def _new_serial() -> int:
    return int.from_bytes(os.urandom(7)) + 1


def _free_name(path: Path, trace: str) -> Path:
    """`corrupt-1`, `corrupt-2` …; `newer-v2`, `newer-v2-2` …"""
    numbered = [f"{trace}-{n}" for n in range(1, 1000)]
    names = numbered if trace == "corrupt" else [trace, *numbered[1:]]
    return next(free for name in names if not (free := path.with_name(f"{path.name}.{name}")).exists())


def _check_header(line: bytes) -> None:
    try:
        header = orjson.loads(line)
        kind, version = header["kind"], header["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise _Unreadable("corrupt", "its first line is not a header") from error
    if kind != KIND or not isinstance(version, int) or version < 1:
        raise _Unreadable("corrupt", "its header is another's")
    if version > VERSION:
        raise _Unreadable(
            f"newer-v{version}", f"version {version} was written by a later agent, this one knows {VERSION}"
        )


def _line(record: Mapping[str, Any]) -> bytes:
    content = orjson.dumps(record)
    return b"%08x %s\n" % (crc32(content), content)


def _record(line: bytes) -> Mapping[str, Any]:
    match = re.fullmatch(rb"([0-9a-f]{8}) (.*)\n", line)
    if not match or int(match[1], 16) != crc32(match[2]):
        raise _Unreadable("corrupt", "a record's checksum does not fit")
    try:
        record = orjson.loads(match[2])
    except ValueError as error:
        raise _Unreadable("corrupt", "a record is not JSON") from error
    if not isinstance(record, dict):
        raise _Unreadable("corrupt", "a record is not an object")
    return record
