"""Everything that can happen to a node's claims, in any order, against a model of what must hold.

The driver, its store, checkpoint, cache and `reconcile` are the real ones, on real files. Around them are models: an
API server with a scheduler, whose watch is as late as it likes; a kubelet that repeats itself, errs about uids and
calls in any order; and a disk (`Disk`) on which every write, rename, removal and sync can be the last thing that a
process does, or fail. Processes are killed and overlap, the node loses its power, the checkpoint is damaged, or comes
from a later or an earlier agent.

After every step (`Node.everything_is_in_order`):

* no core is in two prepared claims;
* every answered prepare holds: same devices, same answer, its files there, while its allocation lasts, and the CDI
  names that the kubelet was given also when the claim was prepared anew since;
* what is not prepared has left nothing, unless a kill or a failing disk said otherwise, and then only until the
  kubelet's next word or `reconcile`;
* a prepare that can succeed does, and every error is a sentence.

`make soak` runs the same machine for a million steps.
"""

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from neuron_dra_driver.claims.claim_cache import FRESH, SETTLE, ClaimCache
from neuron_dra_driver.claims.driver import NodeDriver
from neuron_dra_driver.claims.reconcile import reconcile
from neuron_dra_driver.errors import AgentError
from neuron_dra_driver.kubeletplugin import ApiError, ClaimRef, PreparedDevice
from neuron_dra_driver.lock import NodeLock
from neuron_dra_driver.metrics import Metrics
from neuron_dra_driver.node import standalone
from neuron_dra_driver.prepared.runtime_tree import RuntimeTrees
from neuron_dra_driver.prepared.store import ClaimStore
from neuron_dra_driver.records.checkpoint import Checkpoint, Entry

Object = dict[str, Any]

DRIVER, HERE, ELSEWHERE = "neuron.aws.com", "worker-1", "worker-2"
NODE = standalone(name=HERE, type_name="trn2.3xlarge", partitions="logical")  # one chip of four cores: everything meets
CORES = {name: frozenset(NODE.part(name).physical_cores) for name in NODE.devices}
NAMES = ("a", "b", "c", "d")
CHIP = "neuron-device-0"
GRANTS: tuple[Mapping[str, Sequence[str]], ...] = (
    *({"r": [f"neuron-core-{core}"]} for core in range(4)),
    {"r": [CHIP]},
    {"r": ["neuron-core-0", "neuron-core-1"]},
    {"x": ["neuron-core-2"], "y": ["neuron-core-3"]},
    {"y": ["neuron-core-1"]},
)
"""What a claim may be given: devices by request."""

Devices: TypeAlias = frozenset[tuple[str, str]]
"""Requests, each with a device."""


# --- the disk


class Crash(BaseException):
    """The process is no more."""


class Disk:
    """While it is entered, what changes files goes through here: the n-th change may fail, or be a process's last.

    It also knows what a power cut would leave of the checkpoint: what was synced.
    """

    CHANGES = ("write", "open", "rename", "utime", "unlink", "mkdir", "rmdir", "ftruncate", "fsync", "fdatasync")

    def __init__(self, journal: Path, durable: Path) -> None:
        self.kind = ""
        """What the next fault is: "crash before", "crash after", "torn" (half a write, then a crash), "error" (once), \
        "sync error" (once, and only syncs count), \
        "full" or "read-only" (from then on, until the call is over)."""
        self.left = 0
        self.struck = False
        self.dead = False
        self._journal, self._durable = journal, durable
        self._synced: dict[int, int] = {}
        self._real = {name: getattr(os, name) for name in self.CHANGES}
        self._mine = {name: self._wrap(name, real) for name, real in self._real.items()}

    def __enter__(self) -> None:
        self.struck = self.dead = False
        vars(os).update(self._mine)

    def __exit__(self, *_: object) -> None:
        vars(os).update(self._real)
        if self.struck:
            self.kind = ""

    @contextlib.contextmanager
    def well(self) -> Iterator[None]:
        """For the machine's own looks."""
        kind, self.kind = self.kind, ""
        with self:
            yield
        self.kind = kind

    def cut_power(self) -> None:
        """The checkpoint is as it was synced."""
        self._journal.unlink(missing_ok=True)
        if self._durable.exists():
            size = self._synced[self._durable.stat().st_ino]
            self._journal.write_bytes(self._durable.read_bytes()[:size])
        self.settle()

    def settle(self) -> None:
        """The checkpoint as it is will survive."""
        self._durable.unlink(missing_ok=True)
        if self._journal.exists():
            self._durable.hardlink_to(self._journal)
            found = self._journal.stat()
            self._synced[found.st_ino] = found.st_size

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if self.dead:
                raise Crash
            counts = self.kind != "sync error" or name in ("fsync", "fdatasync")
            if self.kind and counts and self._changes(name, args):
                self.left -= 1
                if self.left <= 0:
                    self._strike(name, real, args, more)
            done = real(*args, **more)
            if name in ("fsync", "fdatasync"):
                self._note_sync(args[0])
            return done

        return call

    @staticmethod
    def _changes(name: str, args: Sequence[Any]) -> bool:
        match name:
            case "open":
                return bool(args[1] & os.O_CREAT)
            case "mkdir":
                return not os.path.lexists(args[0])
            case "unlink" | "rmdir":
                return os.path.lexists(args[0])
        return True

    def _strike(self, name: str, real: Callable[..., Any], args: Sequence[Any], more: Mapping[str, Any]) -> None:
        persistent = self.kind in ("full", "read-only")
        if persistent and name not in ("write", "open", "mkdir") and not (self.kind == "read-only" and name != "fsync"):
            return
        if self.struck and not persistent:
            return
        self.struck = True
        if name == "write" and self.kind in ("torn", "error"):
            real(args[0], args[1][: len(args[1]) // 2])
        if self.kind == "crash after":
            real(*args, **more)
            if name in ("fsync", "fdatasync"):
                self._note_sync(args[0])
        if self.kind in ("crash before", "crash after", "torn"):
            self.dead = True
            raise Crash
        code = errno.EROFS if self.kind == "read-only" else errno.ENOSPC if name in ("write", "open") else errno.EIO
        raise OSError(code, os.strerror(code))

    def _note_sync(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):  # the checkpoint's folder is the only one
            with contextlib.suppress(FileNotFoundError):
                self._real["unlink"](self._durable)
            with contextlib.suppress(FileNotFoundError):
                os.link(self._journal, self._durable)
        else:
            self._synced[found.st_ino] = found.st_size


# --- the API server


@dataclass
class Allocated:
    """An allocation, and when it began and ended, as places in the log of events."""

    devices: Devices
    pool: str
    since: int
    until: int | None = None


class Api:
    """Claims, a scheduler that gives no core twice, and the log of all that happened."""

    def __init__(self) -> None:
        self.away = False
        self.claims: dict[str, Object] = {}
        self.log: list[bytes] = []
        self.history: dict[str, list[Allocated]] = {}
        self.ended: Callable[[str], None] = lambda uid: None
        self.meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Happens between the next answer and what its reader makes of it."""
        self.errs_in = 0
        """The how manieth read from now on fails, and no other."""
        self.erred = False

    @property
    def now(self) -> int:
        return len(self.log)

    async def read(self, namespace: str, name: str) -> Any:
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionError("connection refused")
        self.errs_in -= 1
        if self.errs_in == 0:
            self.erred = True
            raise ApiError(500, "etcdserver: request timed out")
        answer = orjson.loads(orjson.dumps(self.claims.get(name)))
        if self.meanwhile:
            happens, self.meanwhile = self.meanwhile, None
            await happens()
        return answer

    def create(self, name: str) -> None:
        if name in self.claims:
            self.delete(name)
        uid = f"uid-{sum(map(bool, self.history)) + len(self.history)}-{name}"
        self.history[uid] = []
        metadata = {"namespace": "team", "name": name, "uid": uid}
        self.claims[name] = {"metadata": metadata, "spec": {"devices": {}}, "status": {}}
        self._tell("ADDED", self.claims[name])

    def delete(self, name: str) -> None:
        self._end(name)
        self._tell("DELETED", self.claims.pop(name))

    def deallocate(self, name: str) -> None:
        self._end(name)
        self.claims[name]["status"] = {}
        self._tell("MODIFIED", self.claims[name])

    def allocate(self, name: str, first_choice: int, pool: str) -> None:
        """Give what is free, the first choice if it is."""
        for choice in range(first_choice, first_choice + len(GRANTS)):
            granted = GRANTS[choice % len(GRANTS)]
            devices = frozenset((request, device) for request, given in granted.items() for device in given)
            if pool == ELSEWHERE or not cores(devices) & self._taken():
                break
        else:
            return
        results = [
            {"request": request, "driver": DRIVER, "pool": pool, "device": device}
            for request, device in sorted(devices)
        ]
        self.history[self.claims[name]["metadata"]["uid"]].append(Allocated(devices, pool, self.now))
        self.claims[name]["status"] = {"allocation": {"devices": {"results": results}}}
        self._tell("MODIFIED", self.claims[name])

    def allocated(self, name: str) -> Allocated | None:
        """How the claim of this name is allocated."""
        claim = self.claims.get(name)
        last = self.history[claim["metadata"]["uid"]][-1:] if claim else []
        return last[0] if last and last[0].until is None else None

    def here(self, ref: ClaimRef) -> Allocated | None:
        """How this very claim is allocated on this node."""
        claim, found = self.claims.get(ref.name), self.allocated(ref.name)
        return found if claim and found and claim["metadata"]["uid"] == ref.uid and found.pool == HERE else None

    def _taken(self) -> frozenset[int]:
        live = [found for name in self.claims if (found := self.allocated(name)) and found.pool == HERE]
        return cores(pair for found in live for pair in found.devices)

    def _end(self, name: str) -> None:
        if found := self.allocated(name):
            found.until = self.now
            self.ended(self.claims[name]["metadata"]["uid"])

    def _tell(self, kind: str, claim: Object) -> None:
        claim["metadata"]["resourceVersion"] = str(self.now)
        self.log.append(orjson.dumps({"type": kind, "object": claim}))


def cores(devices: Iterable[tuple[str, str]]) -> frozenset[int]:
    """The physical cores of devices."""
    return frozenset().union(*(CORES[device] for _, device in devices))


def held(entry: Entry) -> Devices:
    """The devices of a prepared claim."""
    return frozenset((device.request, device.device) for device in entry.devices)


# --- a process


class Process:
    """An agent's process: the real objects, and where its watch is."""

    def __init__(self, machine: "Node") -> None:
        root = machine.root
        self.api, self.machine = machine.api, machine
        self.stream: Stream | None = None
        self.following: asyncio.Task[None] | None = None
        self.unread = False
        """Bytes of the watch wait."""
        self.to_tell: list[bytes] = []
        """Of what there was when the watch began, what is still on its way."""
        self.told = 0
        """The place in the log up to which the watch has told."""
        self.live_from = 0
        """The place in the log from which on events are news to it."""
        self.told_at: dict[int, float] = {}
        self.touched: dict[str, int] = {}
        """By uid, the place in the log of what came after this process last had to do with a claim."""
        self.cache = ClaimCache(self, driver=DRIVER, pool=HERE, clock=lambda: machine.time)  # type: ignore[arg-type]
        self.checkpoint = Checkpoint(root / "plugins", compact_after=6)
        self.store = ClaimStore(
            driver=DRIVER,
            cdi_directory=root / "cdi",
            run_directory=root / "run",
            checkpoint=self.checkpoint,
            trees=RuntimeTrees(machine.tools, root / "state"),
        )
        self.lock = NodeLock(root / "plugins", patience=5)
        self.driver = NodeDriver(
            driver=DRIVER,
            pool=HERE,
            read_claim=self.api.read,
            store=self.store,
            lock=self.lock,
            node=self._node,
            changed=lambda: None,
            metrics=machine.metrics,
            cache=self.cache,
        )

    async def begin(self) -> None:
        async with self.lock.held():
            self.store.refresh()

    async def reconcile(self) -> None:
        with contextlib.suppress(AgentError):  # the agent tries again later
            await reconcile(
                driver=DRIVER, pool=HERE, read_claim=self.api.read, store=self.store, lock=self.lock, node=NODE
            )

    @contextlib.asynccontextmanager
    async def follow_claims(self, version: str) -> AsyncIterator["Stream"]:
        """As `Kube` has it."""
        if self.api.away:
            raise ConnectionError("connection refused")
        self.to_tell = []
        if version:
            self.told = int(version) + 1
        else:
            self.told = self.api.now
            end = {"resourceVersion": str(self.told - 1), "annotations": {"k8s.io/initial-events-end": "true"}}
            claims = [{"type": "ADDED", "object": claim} for claim in self.api.claims.values()]
            self.to_tell = [orjson.dumps(e) for e in (*claims, {"type": "BOOKMARK", "object": {"metadata": end}})]
        self.live_from = self.told
        self.stream = Stream(self)
        try:
            yield self.stream
        finally:
            self.stream = None

    async def watch(self, *, settled: bool) -> None:
        if self.following is None or self.following.done():
            self.following = asyncio.ensure_future(self.cache.follow())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if self.following.done():
                self.following.exception()
        if settled:
            await self.catch_up(len(self.to_tell))
            self.machine.time += SETTLE

    async def interrupt(self, error: Exception | None) -> None:
        if self.stream and self.following:
            if error:
                self.stream.ended.set_exception(error)
            else:
                self.stream.ended.set_result(None)
            await asyncio.wait([self.following])
            self.following.exception()

    async def catch_up(self, events: int) -> None:
        """The watch tells some events, and what follows from them is done."""
        for _ in range(events):
            try:
                if self.stream and self.to_tell:
                    self.stream.handle(self.to_tell.pop(0))
                elif self.stream and self.told < self.api.now:
                    self.told_at[self.told] = self.machine.time
                    self.told += 1
                    self.stream.handle(self.api.log[self.told - 1])
            except ApiError as error:  # the watch ends by what was made of its event
                await self.interrupt(error)
        while looks := self.driver._second_looks:
            await asyncio.wait(looks)

    def may_believe_in(self, uid: str, allocation: Allocated) -> bool:
        """Whether nothing tells this process that an allocation is over: the case that `claim_cache` describes."""
        return (
            self.stream is not None
            and not self.to_tell
            and not self.unread
            and self.live_from <= allocation.since < self.told
            and allocation.until is not None
            and self.told <= allocation.until
            and uid not in self.touched
            and self.machine.model.used.get(uid, -1) <= self.live_from
            and self.machine.time - self.told_at[allocation.since] < FRESH
        )

    def entries(self) -> Mapping[str, Entry]:
        with self.machine.disk.well():
            self.machine.loop.run_until_complete(self._look())
        return self.checkpoint.entries

    async def _look(self) -> None:
        await self.begin()
        await self.catch_up(0)

    @staticmethod
    async def _node() -> Any:
        return NODE


class Stream:
    """A watch on the wire."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.handle: Callable[[bytes], object]
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def each(self, handle: Callable[[bytes], object], *, silence: float) -> None:
        self.handle = handle
        await self.ended

    def waiting(self) -> bool:
        return self._process.unread


# --- what must hold


@dataclass
class Answer:
    """What the kubelet was told about a claim and still relies on."""

    ref: ClaimRef
    devices: Devices
    result: Sequence[PreparedDevice] | None
    """None: prepared anew without being asked."""
    over: bool
    """Its allocation has ended: others may be given its devices, and nothing has to be kept."""
    files: bool = True
    """They are not there after a reboot, until somebody asks."""


@dataclass
class Model:
    """What was answered; of what else something may be left."""

    answers: dict[str, Answer] = field(default_factory=dict)
    limbo: set[str] = field(default_factory=set)
    """Claims in whose prepare or unprepare something went wrong."""
    used: dict[str, int] = field(default_factory=dict)
    """By uid, when some process last answered with devices: the others know of it."""
    told: dict[str, set[str]] = field(default_factory=dict)
    """By uid, the CDI names that the kubelet was given and may still use, without the uid: for the claim as it is \
    prepared, and until the next end of an allocation, when no pod has it any more."""


names = st.sampled_from(NAMES)
choices = st.integers(0, len(GRANTS) - 1)
seldom = st.sampled_from([0, 0, 0, 0, 1, 2])
either = st.booleans()
mostly = st.sampled_from([True, True, True, False])


class Node(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="machine-", dir=_memory()))
        self.tools = self.root / "image"
        (self.tools / "bin").mkdir(parents=True)
        (self.tools / "bin" / "neuron-ls").write_text("#!/bin/false\n")
        self.journal = self.root / "plugins" / "checkpoint.jsonl"
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_say_nothing_of_crashes)
        self.time = 1000.0
        self.metrics = Metrics()
        self.api = Api()
        self.api.ended = self._allocation_ended
        self.disk = Disk(self.journal, self.root / "durable")
        self.model = Model()
        self.processes: list[Process] = []
        self.away_for = self.unread_for = 0
        self.damaged, self.put_aside = False, 0
        self._start()
        for core, name in enumerate(NAMES):
            self._allocate(name, core)

    def teardown(self) -> None:
        for process in list(self.processes):
            self._kill(process)
        self.loop.close()
        shutil.rmtree(self.root)

    # --- users and the scheduler

    @rule(name=names, choice=choices, pool=st.sampled_from([HERE, HERE, HERE, ELSEWHERE]), told=either)
    def allocate(self, name: str, choice: int, pool: str, told: bool) -> None:
        """A claim is allocated, for the first time or anew."""
        self._allocate(name, choice, pool)
        if told:
            self.watch_tells(newest=True, events=100)

    def _allocate(self, name: str, choice: int, pool: str = HERE) -> None:
        if name not in self.api.claims:
            self.api.create(name)
        elif self.api.allocated(name):
            self.api.deallocate(name)
        self.api.allocate(name, choice, pool)

    @rule(name=names, how=st.sampled_from(["deallocate", "deallocate", "create", "delete"]))
    def end(self, name: str, how: str) -> None:
        """A claim is not needed any more, or made anew under its name."""
        if name in self.api.claims:
            getattr(self.api, how)(name)

    @rule(name=names, other=names, choice=choices)
    def hurry(self, name: str, other: str, choice: int) -> None:
        """Between the next answer of the API server and its use, a claim's devices go to another."""

        async def happens() -> None:
            if self.api.allocated(name):
                self.api.deallocate(name)
            self._allocate(other, choice)

        self.api.meanwhile = happens

    # --- the kubelet

    @rule(name=names, choice=choices, told=either)
    def a_pod_starts(self, name: str, choice: int, told: bool) -> None:
        """As it is when nothing is wrong: a claim is allocated, which the watch tells (or not yet), and prepared."""
        process = self._process(True)
        if not self.api.allocated(name):
            self._allocate(name, choice)
        if told:
            self.watch_tells(newest=True, events=100)
            process = self._process(True)
        self._prepare([self._ref(name, 0)], process)

    @rule(name=names, how=st.sampled_from(["deallocate", "deallocate", "delete"]), anew=st.none() | choices)
    def a_pod_ends(self, name: str, how: str, anew: int | None) -> None:
        """Its claim is unprepared, then given back, and maybe allocated to the next pod at once."""
        self.unprepare(name=name, older=0, newest=True)
        self.end(name=name, how=how)
        if anew is not None:
            self.a_pod_starts(name=name, choice=anew, told=False)

    @rule(name=names, older=seldom, newest=either)
    def prepare(self, name: str, older: int, newest: bool) -> None:
        self._prepare([self._ref(name, older)], self._process(newest))

    @rule(first=names, second=names, together=either)
    def prepare_two(self, first: str, second: str, together: bool) -> None:
        """The claims of one pod, or of two pods at once."""
        if first != second:
            self._prepare([self._ref(first, 0), self._ref(second, 0)], self._process(True), together=together)

    @rule(name=names, older=seldom, newest=either)
    def unprepare(self, name: str, older: int, newest: bool) -> None:
        ref, process = self._ref(name, older), self._process(newest)
        self._unprepared(ref, self._run(process, process.driver.unprepare([ref])), process)

    @rule(first=names, second=names, syncs=st.integers(0, 4))
    def unprepare_two(self, first: str, second: str, syncs: int) -> None:
        """The claims of one pod, and maybe a sync on the way fails."""
        if first == second or self.disk.kind:
            return
        if syncs:
            self.disk_will_fail(kind="sync error", change=syncs)
        refs, process = [self._ref(first, 0), self._ref(second, 0)], self._process(True)
        answered = self._run(process, process.driver.unprepare(refs))
        for ref in refs:
            self._unprepared(ref, {ref.uid: answered[ref.uid]}, process)
        self.disk.kind = ""

    def _unprepared(self, ref: ClaimRef, answered: Any, process: Process) -> None:
        process.touched[ref.uid] = self.api.now
        self.model.told.pop(ref.uid, None)
        self.model.answers.pop(ref.uid, None)
        self.model.limbo.discard(ref.uid)
        if answered is None or answered[ref.uid] is not None:
            self.model.limbo.add(ref.uid)
        if answered is not None:
            assert answered.keys() == {ref.uid}
            if error := answered[ref.uid]:
                self._is_a_sentence(error)
                assert self.disk.struck, f"unprepare of {ref} failed for no reason: {error}"

    # --- what takes several steps that would seldom come in this order

    @rule(name=names, choice=choices, anew=choices, told=st.integers(0, 3))
    def the_other_agent_serves_a_pod(self, name: str, choice: int, anew: int, told: int) -> None:
        """In a rolling update, the next pod is this one's, whose watch is late by all that the other one did."""
        self._two_agents()
        if not self.api.allocated(name):
            self._allocate(name, choice)
        self.watch_tells(newest=True, events=100)
        self._prepare([self._ref(name, 0)], self._process(False))
        self.unprepare(name=name, older=0, newest=False)
        self._allocate(name, anew)
        if told:
            self.watch_tells(newest=True, events=told)
        self._prepare([self._ref(name, 0)], self._process(True))

    @rule(name=names, other=names, choice=choices, change=st.integers(8, 30), lost=either)
    def what_a_kill_left_goes_to_another(self, name: str, other: str, choice: int, change: int, lost: bool) -> None:
        """An agent dies while it prepares, the other one gives the devices to the next pod, and a third one comes."""
        if name == other or self.disk.kind:
            return
        self._two_agents()
        self._allocate(name, choice)
        self.disk_will_fail(kind="crash before", change=change)
        self._prepare([self._ref(name, 0)], self._process(True))
        self.disk.kind = ""
        self.end(name=name, how="deallocate")
        self._allocate(other, choice)
        self._prepare([self._ref(other, 0)], self._process(False))
        if lost:
            self.damage(what="missing", name=name, place=0)
        else:
            self.restart(what="restart", watching=True)

    @rule(name=names, other=names, choice=choices, errs=mostly)
    def too_late(self, name: str, other: str, choice: int, errs: bool) -> None:
        """An allocation was read that is another's before it is prepared, and nobody can be asked about that one."""
        if name == other or self.disk.kind:
            return
        self._allocate(name, choice)
        process, since = self._process(True), []

        async def happens() -> None:
            self.end(name=name, how="deallocate")
            self._allocate(other, choice)
            since.append(self.api.now)
            prepared.update(await process.driver.prepare([self._ref(other, 0)]))
            self.api.errs_in = int(errs)

        prepared: dict[str, Any] = {}
        self.api.meanwhile = happens
        self._prepare([self._ref(name, 0)], process)
        self.api.meanwhile, self.api.errs_in = None, 0
        if since:
            self._prepared([self._ref(other, 0)], prepared, process, since[0], {})

    def _two_agents(self) -> None:
        if len(self.processes) < 2:
            self._start()

    # --- the watch

    @rule(newest=either, settled=either)
    def watch_begins(self, newest: bool, settled: bool) -> None:
        process = self._process(newest)
        if self._run(process, process.watch(settled=settled)) is not None:
            self._after_second_looks(process)

    @rule(newest=either, events=st.sampled_from([1, 1, 2, 4, 100]))
    def watch_tells(self, newest: bool, events: int) -> None:
        process = self._process(newest)
        if self._run(process, process.catch_up(events)) is not None:
            self._after_second_looks(process)

    def _after_second_looks(self, process: Process) -> None:
        """What was prepared anew without being asked (`reconcile` does so, too), because its allocation had ended."""
        for uid, entry in process.entries().items():
            known = self.model.answers.get(uid)
            devices = held(entry)
            if known and known.devices != devices:
                assert known.over, f"{known.ref} was prepared anew with {devices} while it is allocated"
                now = self.api.here(known.ref)
                self.model.answers[uid] = Answer(known.ref, devices, None, over=not (now and now.devices == devices))

    @rule(
        what=st.sampled_from(
            [
                *("API server away", "API server errs once", "watch not read", "time", "much time"),
                *("watch ends", "watch breaks", "watch too old"),
            ]
        ),
        calls=st.integers(1, 3),
    )
    def trouble(self, what: str, calls: int) -> None:
        """The first two, for the next calls: bytes of the watch wait, as in a process that was stopped."""
        errors = {"watch ends": None, "watch breaks": ConnectionError("reset"), "watch too old": ApiError(410, "no")}
        match what:
            case "API server away":
                self.away_for = calls
            case "API server errs once":
                self.api.errs_in = calls
            case "watch not read":
                self.unread_for = calls
            case "time" | "much time":
                self.time += SETTLE if what == "time" else FRESH
            case _:
                process = self._process(True)
                self._run(process, process.interrupt(errors[what]))

    # --- processes, the node, and its disk

    @rule(
        kind=st.sampled_from(
            ["crash before", "crash before", "crash after", "torn", "error", "sync error", "full", "read-only"]
        ),
        change=st.integers(1, 24),
    )
    def disk_will_fail(self, kind: str, change: int) -> None:
        self.disk.kind, self.disk.left = kind, change

    @rule(what=st.sampled_from(["restart", "second process", "reboot", "power cut"]), watching=mostly)
    def restart(self, what: str, watching: bool) -> None:
        """Second process: in a rolling update, the new agent is there before the old one goes."""
        match what:
            case "restart":
                self._kill(self._process(True))
            case "second process":
                if len(self.processes) > 1:
                    self._kill(self.processes[0])
            case _:
                self._stop_all()
                if what == "power cut":
                    self.disk.cut_power()
                for folder in ("cdi", "run"):
                    shutil.rmtree(self.root / folder, ignore_errors=True)
                for answer in self.model.answers.values():
                    answer.files = False
        self._start(watching=watching)

    @rule(
        what=st.sampled_from(
            [
                *("CDI file", "view", "folder"),
                *("newer", "unknown fields", "no cores", "empty", "missing", "damaged", "half a line"),
            ]
        ),
        name=names,
        place=st.integers(0, 4000),
    )
    def damage(self, what: str, name: str, place: int) -> None:
        """A hand, a bad disk, or agents of other versions that were here before."""
        if what in ("CDI file", "view", "folder"):
            self._lose_files(self._ref(name, 0).uid, what)
        else:
            self._stop_all()
            self._change_checkpoint(what, place)
            self._start()

    def _lose_files(self, uid: str, what: str) -> None:
        folder = self.root / "run" / uid
        if what == "CDI file":
            self._cdi(uid).unlink(missing_ok=True)
        elif what == "folder":
            shutil.rmtree(folder, ignore_errors=True)
        else:
            for view in folder.glob("*/view.json"):
                view.unlink()
        if answer := self.model.answers.get(uid):
            answer.files = False

    def _change_checkpoint(self, how: str, place: int) -> None:
        content = self.journal.read_bytes() if self.journal.exists() else b""
        lines = content.splitlines(keepends=True)
        match how:
            case "newer":
                lines[:1] = [b'{"kind":"neuron-sim-checkpoint","version":999}\n']
            case "unknown fields":
                lines = [b'{"kind":"neuron-sim-checkpoint","version":1,"more":true}\n', *map(_with_more, lines[1:])]
            case "no cores":
                lines[1:] = map(_as_the_first_version, lines[1:])
            case "empty":
                lines = []
            case "half a line":
                lines.append(b"0123abcd {")
            case "damaged" if content:
                at = place % len(content)
                lines = [content[:at], bytes([content[at] ^ 1]), content[at + 1 :]]
        self.damaged = True
        self.journal.write_bytes(b"".join(lines))
        if how == "missing":
            self.journal.unlink()
        self.disk.settle()
        if how in ("newer", "empty", "missing", "damaged"):
            # Only CDI files tell now. The last record alone may be lost, too: then what it removed is there again.
            self.model.limbo.update(self.api.history)
            for uid in [uid for uid, answer in self.model.answers.items() if not answer.files]:
                del self.model.answers[uid]

    @rule(newest=either)
    def reconcile(self, newest: bool) -> None:
        process, since = self._process(newest), self.api.now
        alive = self._run(process, process.reconcile()) is not None
        hindered = not alive or self.disk.struck or self.api.away or self.api.erred
        self._after_second_looks(self.processes[-1])
        if hindered:
            return
        if self.api.now > since:
            return  # what happens meanwhile makes it leave things for the next time
        traces = {trace.uid: trace.entry for trace in process.store.traces()}
        for uid, entry in traces.items():
            assert entry, f"{uid} has left something"
            allocated = self.api.here(ClaimRef(entry.namespace, entry.name, uid))
            devices = held(entry)
            assert allocated, f"{entry} is prepared and gone"
            had, has = ({device for _, device in of} for of in (devices, allocated.devices))
            assert had <= has, f"{entry} is prepared with what it had"
            if devices == allocated.devices:
                assert process.store.complete(entry), f"{entry} is not complete"
        answers = self.model.answers
        for uid in [uid for uid, answer in answers.items() if answer.over and uid not in traces]:
            del answers[uid]
        for answer in answers.values():
            answer.files |= not answer.over
        self.model.limbo = set(traces) - answers.keys()

    @rule(name=names, anew=st.none() | choices, newest=either, stays=either)
    def reconcile_meanwhile(self, name: str, anew: int | None, newest: bool, stays: bool) -> None:
        """While the API server answers `reconcile`, the kubelet unprepares the claim, and prepares it for the next pod.

        `stays`: with the same allocation, if it has one.
        """
        process, kubelets = self._process(newest), self._process(True)
        if self.disk.kind and process is not kubelets:
            return  # only one process can die of it
        ref, begun = self._ref(name, 0), []

        async def happens() -> None:
            begun.append(self.api.now)
            unprepared.update(await kubelets.driver.unprepare([ref]))
            if not (stays and self.api.allocated(name)):
                self.end(name=name, how="deallocate")
                if anew is not None:
                    self._allocate(name, anew)
            begun.append(self.api.now)
            prepared.update(await kubelets.driver.prepare([ref]))

        unprepared: dict[str, Any] = {}
        prepared: dict[str, Any] = {}
        self.api.meanwhile = happens
        alive = self._run(process, process.reconcile()) is not None
        self.api.meanwhile = None
        if begun:
            self._unprepared(ref, unprepared if alive else None, kubelets)
        if prepared:
            self._prepared([ref], prepared, kubelets, begun[1], {})
        elif begun:
            self.model.limbo.add(ref.uid)
        self._after_second_looks(self.processes[-1])

    # --- what must hold

    @invariant()
    def everything_is_in_order(self) -> None:
        entries = self.processes[-1].entries()
        self._no_core_twice(entries)
        put_aside = len(self.processes[-1].store.quarantined())
        assert self.damaged or put_aside == self.put_aside, "a checkpoint was put aside that nobody damaged"
        self.damaged, self.put_aside = False, put_aside
        for uid, answer in self.model.answers.items():
            if not answer.over:
                entry = entries.get(uid)
                assert entry, f"{answer.ref} was answered and is lost"
                assert held(entry) == answer.devices, f"{answer.ref} has other devices"
                if answer.files:
                    self._files_are_there(answer)
        known = self.model.answers.keys() | self.model.limbo
        assert not (left := self._traces(entries) - known), f"left over: {left}"

    def _no_core_twice(self, entries: Mapping[str, Entry]) -> None:
        seen: dict[int, Entry] = {}
        for entry in entries.values():
            for core in cores(held(entry)):
                assert seen.setdefault(core, entry) is entry, f"core {core} is {entry.uid}'s and {seen[core].uid}'s"

    def _files_are_there(self, answer: Answer) -> None:
        assert self._cdi(answer.ref.uid).exists(), f"{answer.ref} has no CDI file"
        spec = orjson.loads(self._cdi(answer.ref.uid).read_bytes())
        offered = {device["name"].removeprefix(f"{answer.ref.uid}_") for device in spec["devices"]}
        told = {name for name in self.model.told.get(answer.ref.uid, ()) if name.partition("_")[0] in offered}
        assert offered >= told, f"{answer.ref}: the kubelet was given {told - offered}, which is no CDI device"
        for request in {device.requests[0] for device in answer.result or ()}:
            assert (self.root / "run" / answer.ref.uid / request / "view.json").exists(), f"{answer.ref} has no view"

    def _traces(self, entries: Mapping[str, Entry]) -> set[str]:
        prefix = f"{DRIVER}-claim_"
        cdi = {name.removeprefix(prefix).partition(".")[0] for name in _names(self.root / "cdi")}
        return {*entries, *cdi, *_names(self.root / "run")}

    def _is_well_formed(self, answer: Answer) -> None:
        """The files say what the answer says."""
        spec = orjson.loads(self._cdi(answer.ref.uid).read_bytes())
        named = {f"{spec['kind']}={device['name']}": device["containerEdits"] for device in spec["devices"]}
        seen = set()
        for device in answer.result or ():
            assert named.keys() >= set(device.cdi_device_ids), f"{answer.ref}: the CDI file lacks what was answered"
            edits = named[device.cdi_device_ids[-1]]
            assert all(Path(mount["hostPath"]).exists() for mount in edits["mounts"]), f"{answer.ref}: mounts nothing"
            seen.add(device.requests[0])
        physical = 0
        for request in seen:
            view = orjson.loads(Path(f"{self.root}/run/{answer.ref.uid}/{request}/view.json").read_bytes())
            physical += NODE.logical_neuron_core * sum(len(device["core_ids"]) for device in view["devices"])
        assert physical == len(cores(answer.devices)), f"{answer.ref}: the views tell of {physical} cores"

    # --- how it is done

    def _prepare(self, refs: Sequence[ClaimRef], process: Process, *, together: bool = True) -> None:
        since = self.api.now
        before = dict(self.model.answers)
        calls = [refs] if together else [[ref] for ref in refs]
        answered = self._run(process, _all(process.driver.prepare(call) for call in calls))
        if answered is None:
            self.model.limbo.update(ref.uid for ref in refs)
            return
        results = {uid: result for answer in answered for uid, result in answer.items()}
        self._prepared(refs, results, process, since, before)

    def _prepared(
        self,
        refs: Sequence[ClaimRef],
        results: Mapping[str, Any],
        process: Process,
        since: int,
        before: Mapping[str, Answer],
    ) -> None:
        assert results.keys() == {ref.uid for ref in refs}
        for ref in refs:
            result, now = results[ref.uid], self.api.here(ref)
            if isinstance(result, Exception):
                self._is_a_sentence(result)
                excused = self.disk.struck or self.api.away or self.api.erred or not now or self.api.now > since
                assert excused, f"prepare of {ref} failed for no reason: {result}"
                if self.disk.struck and self.disk_was == "read-only":
                    self.model.limbo.add(ref.uid)
            else:
                self._judge(ref, result, process, since, before.get(ref.uid))
            process.touched[ref.uid] = self.api.now

    def _judge(
        self, ref: ClaimRef, result: Sequence[PreparedDevice], process: Process, since: int, before: Answer | None
    ) -> None:
        """A prepare was answered with devices."""
        devices = frozenset((device.requests[0], device.device) for device in result)
        same = [a for a in self.api.history.get(ref.uid, ()) if a.pool == HERE and a.devices == devices]
        live = any(a.until is None or a.until >= since for a in same)
        assert live or any(process.may_believe_in(ref.uid, a) for a in same), (
            f"{ref} was given {sorted(devices)}, and {self.api.here(ref)} is true"
        )
        if before and before.result and not before.over and self.api.here(ref):
            assert result == before.result, f"{ref} was answered otherwise before"
        for uid, other in self.model.answers.items():
            if uid != ref.uid and not other.over:
                assert not cores(devices) & cores(other.devices), f"{ref} was given what {other.ref} has"
        names = {name.partition(f"{ref.uid}_")[2] for device in result for name in device.cdi_device_ids}
        self.model.told.setdefault(ref.uid, set()).update(names)
        self.model.used[ref.uid] = self.api.now
        now = self.api.here(ref)
        answer = Answer(ref, devices, result, over=not (now and now.devices == devices))
        self.model.answers[ref.uid] = answer
        self.model.limbo.discard(ref.uid)
        if not answer.over:
            self._is_well_formed(answer)

    def _run(self, process: Process, work: Coroutine[Any, Any, Any]) -> Any:
        """What came out (True for nothing); None when the process died of it, and there is a new one."""
        self.disk_was, self.api.erred = self.disk.kind, False
        self.api.away, process.unread = self.away_for > 0, self.unread_for > 0
        self.away_for, self.unread_for = max(0, self.away_for - 1), max(0, self.unread_for - 1)
        with self.disk:
            try:
                done = self.loop.run_until_complete(work)
            except Crash:
                done = None
        for uid in self.model.told.keys() - process.checkpoint.entries.keys():
            del self.model.told[uid]
        if self.disk.dead:
            self._kill(process)
            if not self.processes:
                self._start()
            return None
        return True if done is None else done

    def _start(self, *, watching: bool = True) -> None:
        process = Process(self)
        self.processes.append(process)
        with contextlib.suppress(AgentError):  # it tries again with every call
            self._run(process, process.begin())
        if watching:
            self.watch_begins(newest=True, settled=True)

    def _kill(self, process: Process) -> None:
        self.processes.remove(process)
        others = {other.following for other in self.processes}
        tasks = [task for task in asyncio.all_tasks(self.loop) if task not in others]
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        for task in (*tasks, *process.driver._second_looks):
            if not task.cancelled():
                task.exception()
        process.store.close()
        process.lock.close()

    def _stop_all(self) -> None:
        for process in list(self.processes):
            self._kill(process)

    def _process(self, newest: bool) -> Process:
        return self.processes[-1 if newest else 0]

    def _ref(self, name: str, older: int) -> ClaimRef:
        """The claim of this name, or one that had it before."""
        uids = [uid for uid in self.api.history if uid.endswith(f"-{name}")]
        return ClaimRef("team", name, uids[max(0, len(uids) - 1 - older)] if uids else f"uid-never-{name}")

    def _allocation_ended(self, uid: str) -> None:
        self.model.told.pop(uid, None)
        if answer := self.model.answers.get(uid):
            answer.over = True

    def _cdi(self, uid: str) -> Path:
        return self.root / "cdi" / f"{DRIVER}-claim_{uid}.json"

    @staticmethod
    def _is_a_sentence(error: Exception) -> None:
        assert isinstance(error, AgentError), f"not for users: {error!r}"
        assert len(str(error)) > 20
        assert "\n" not in str(error)


def _say_nothing_of_crashes(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), Crash):
        loop.default_exception_handler(context)


async def _all(work: Iterator[Coroutine[Any, Any, Any]]) -> list[Any]:
    return list(await asyncio.gather(*work))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - after every step
    except FileNotFoundError:
        return []


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _changed(line: bytes, change: Callable[[Object], None]) -> bytes:
    try:
        record = orjson.loads(line[9:])
    except ValueError:
        return line
    change(record)
    content = orjson.dumps(record)
    return b"%08x %s\n" % (crc32(content), content)


def _with_more(line: bytes) -> bytes:
    """As a later agent of the same version of the format writes it."""

    def change(record: Object) -> None:
        record["later"] = {"and": ["more"]}
        for device in record.get("devices", ()):
            device["colour"] = "blue"

    return _changed(line, change)


def _as_the_first_version(line: bytes) -> bytes:
    """As the agent wrote it that gave away whole chips only."""

    def change(record: Object) -> None:
        record.pop("serial", None)
        devices = record.get("devices", ())
        if all(device["device"] == CHIP for device in devices):
            record.pop("origin", None)
            for device in devices:
                device.pop("cores", None)
                device.pop("logicalNeuronCore", None)

    return _changed(line, change)


def bounded(*, examples: int, steps: int = 50, **more: Any) -> settings:
    """So many lives of so many steps."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        **more,
    )


@pytest.fixture
def silence() -> Iterator[None]:
    """Nothing is logged: hundreds of lives would drown what is worth reading."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("silence")
def test_whatever_happens() -> None:
    # Always the same lives here; `make soak` looks for new ones.
    run_state_machine_as_test(Node, settings=bounded(examples=60, derandomize=True))


@pytest.mark.usefixtures("silence")
def test_a_record_that_was_not_on_disk_yet_when_its_writer_was_killed() -> None:
    """Found by the soak: an unprepare was answered by such a record, and a power cut took the record back."""
    life = Node()
    life.a_pod_ends(anew=0, how="deallocate", name="c")
    life.a_pod_starts(choice=0, name="a", told=False)
    life.disk_will_fail(change=4, kind="crash after")
    life.end(how="deallocate", name="a")
    life.restart(watching=True, what="reboot")
    life.unprepare(name="c", newest=False, older=0)
    life.reconcile(newest=False)
    life.reconcile(newest=False)
    life.restart(watching=True, what="power cut")
    life.everything_is_in_order()
    life.teardown()
