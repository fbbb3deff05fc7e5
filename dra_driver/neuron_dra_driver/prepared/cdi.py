"""CDI: how a claim's devices, files and environment reach its containers.

One file per claim, one CDI device per request, since a container may use one request of a claim and not the others,
and one without any content per allocated device, by which the kubelet tells them apart.
The claim's uid is in every name, because container runtimes cache what a name stands for. Where a claim was prepared
anew with other devices, the names of the former ones stay: the kubelet has its answer and does not ask again, and a
name that nobody knows keeps the pod's containers from starting. They bring nothing; the request's name brings what the
claim has now. The file also carries, as annotations, the record of the checkpoint: it is how the claims in use are
found again when the checkpoint is lost. Its time of modification tells when the claim was last prepared, so that of two
files with the same core the one that lost it is known.

Facts (CDI SPEC.md, tried on containerd 2.1): unknown fields make a file invalid; names that begin with a digit need
0.5.0 and annotations 0.6.0, and a version newer than the runtime's library is refused; two devices in one container
replace each other's mounts and device nodes by path, and the last environment wins; a device node with type and major
needs nothing on the host; only `*.json` and `*.yaml` are read, so a rename publishes a file at once.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ..allocations.config import SIMULATED_VARIABLE
from ..errors import DiskError
from ..files import TEMPORARY, make_directory, remove, write_atomically
from ..names import API_GROUP, SIMULATED
from ..records.checkpoint import Entry, entry_of

VERSION = "0.6.0"
CLAIM = f"{API_GROUP}/claim"
RECORD = f"{API_GROUP}/checkpoint-record"

NULL_DEVICE = {"type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "permissions": "rw"}
"""Char 1:3 is /dev/null: it opens, and whatever is written to it goes nowhere."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the node in the container, read-only."""

    source: str
    target: str
    recursive: bool = False

    def as_edit(self) -> dict[str, Any]:
        """As CDI writes it."""
        bind = "rbind" if self.recursive else "bind"
        return {"hostPath": self.source, "containerPath": self.target, "options": ["ro", bind, "nosuid", "nodev"]}


@dataclass(frozen=True, slots=True)
class RequestEdits:
    """What the containers that use one request get."""

    request: str
    devices: Sequence[str]
    """The names of the devices that the request got."""
    device_nodes: Sequence[str]
    mounts: Sequence[Mount]
    environment: Mapping[str, str]


def kind(driver: str) -> str:
    """The kind of our CDI devices."""
    return f"{driver}/claim"


def device_ids(driver: str, uid: str, request: str, device: str) -> tuple[str, str]:
    """The names under which the kubelet asks the runtime for a device: one of its own, and its request's.

    The kubelet tells devices apart by the first one when it reports their health in the pod's status.
    """
    return f"{kind(driver)}={_device_name(uid, request, device)}", f"{kind(driver)}={_device_name(uid, request)}"


def build(*, driver: str, entry: Entry, requests: Sequence[RequestEdits]) -> dict[str, Any]:
    """The CDI file of a claim."""
    return {
        "cdiVersion": VERSION,
        "kind": kind(driver),
        "annotations": {
            SIMULATED: "true",
            CLAIM: str(entry),
            RECORD: orjson.dumps(entry.as_record()).decode(),
        },
        "devices": [
            {
                "name": _device_name(entry.uid, edits.request),
                "containerEdits": {
                    "env": [f"{name}={value}" for name, value in edits.environment.items()],
                    "deviceNodes": [{"path": path, **NULL_DEVICE} for path in edits.device_nodes],
                    "mounts": [mount.as_edit() for mount in edits.mounts],
                },
            }
            for edits in requests
        ]
        + [
            {
                "name": _device_name(entry.uid, edits.request, device),
                # All is in the request's edits, and CDI allows no empty ones.
                "containerEdits": {"env": [f"{SIMULATED_VARIABLE}=true"]},
            }
            for edits in requests
            for device in (*edits.devices, *(former for request, former in entry.former if request == edits.request))
        ],
    }


class CdiFolder:
    """The folder that the container runtime reads. Others have files in it, too."""

    def __init__(self, directory: Path, *, driver: str) -> None:
        self._directory = directory
        self._name = str(directory)
        self._prefix = f"{driver}-claim_"

    def write(self, uid: str, spec: Mapping[str, Any]) -> None:
        """Publish a claim's file."""
        make_directory(self._name)
        path, now = self._path(uid), time.time_ns()
        write_atomically(path, orjson.dumps(spec, option=orjson.OPT_INDENT_2))
        try:
            os.utime(path, ns=(now, now))  # the kernel's own stamps are milliseconds apart; runtimes do not mind
        except OSError as error:
            raise DiskError(Path(path), error) from error

    def remove(self, uid: str) -> None:
        """Remove a claim's file, and what a kill in the middle of writing it left."""
        remove(self._path(uid))

    def has(self, uid: str) -> bool:
        """Whether the claim's file is there."""
        return Path(self._path(uid)).exists()

    def claims(self) -> set[str]:
        """The uids that left a trace here, finished or not."""
        try:
            names = [path.name for path in self._directory.iterdir()]
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise DiskError(self._directory, error) from error
        found = (name.removesuffix(TEMPORARY) for name in names if name.startswith(self._prefix))
        return {name.removeprefix(self._prefix).removesuffix(".json") for name in found if name.endswith(".json")}

    def prepared_at(self, uid: str) -> int:
        """When the claim's file was last written, also with what it had already; 0 when it is not there."""
        try:
            return Path(self._path(uid)).stat().st_mtime_ns
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise DiskError(Path(self._path(uid)), error) from error

    def annotation(self, uid: str, name: str) -> str | None:
        """An annotation of a claim's file; None when there is no file, or not a whole one."""
        try:
            return str(orjson.loads(Path(self._path(uid)).read_bytes())["annotations"][name])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DiskError(Path(self._path(uid)), error) from error
        except (ValueError, KeyError, TypeError):
            return None

    def entry(self, uid: str) -> Entry | None:
        """The checkpoint's record as the file carries it; None when there is no file, or not a whole one."""
        record = self.annotation(uid, RECORD)
        if record is None:
            return None
        try:
            entry = entry_of(orjson.loads(record))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return entry if entry.uid == uid else None

    def _path(self, uid: str) -> str:
        return f"{self._name}/{self._prefix}{uid}.json"


def _device_name(*parts: str) -> str:
    return "_".join(parts)
