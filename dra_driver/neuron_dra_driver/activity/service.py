"""Listens, for every request of every claim that is prepared here, to what its processes do on their cores.

It is woken when claims come or go, and looks for itself at what is prepared: nothing of it is in the way of a prepare.
A container that starts before its socket is there finds none, and its processes try again. Sockets outlive the agent
as files, and the next agent takes their places; what was reported is reported again by those who live.

Containers are told of faults of their devices by the same hand, since it knows which requests there are.

Profiles are read from the annotations of the node's pods, when claims change and every few seconds, as long as claims
are prepared: nobody is asked on a node without any.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ..allocations.allocation import base_name
from ..errors import DiskError
from ..files import remove, write_atomically
from ..hardware.service import Hardware
from ..lock import NodeLock
from ..node import SimulatedNode
from ..prepared.claim_folders import VIEW, ClaimFolders
from ..prepared.store import ClaimStore
from ..records.checkpoint import Entry
from . import claim_socket, losses
from .board import Board
from .exposition import Shown, core_numbers, render
from .jobs import Job, job_on
from .losses import Loss
from .machine import Machine
from .pods import Pod, Wish, strange_profile, users, wish_of
from .reports import Report, on_cores

SETTLE = 0.2
"""Seconds that claims may go on changing before the sockets follow: they come in bursts."""
PODS_SETTLE = 2.0
"""Seconds between two looks at the pods at least, however fast claims come."""
LOOK_AGAIN = 15.0
"""Seconds between two looks at the pods' annotations."""
LOSSES = "profile-losses.json"
"""Beside the checkpoint: what faults have cost the jobs of profiles."""

log = logging.getLogger(__name__)

ListPods = Callable[[], Awaitable[Collection[Pod]]]
TellPod = Callable[[Pod, str], Awaitable[None]]
"""A sentence for the eyes of a pod's owner."""


@dataclass(slots=True)
class Place:
    """A request with its cores and its socket."""

    entry: Entry
    request: str
    folder: Path
    view: Mapping[str, Any]
    board: Board
    serving: asyncio.Task[None]
    pods: list[Pod] = field(default_factory=list)
    looked: float = 0.0
    """How old the job of its pod's profile was when its counts were last told, in seconds."""


class ActivityService:
    """See the module; `wake` says that claims changed, `run` and `follow_pods` do the work."""

    def __init__(
        self,
        *,
        store: ClaimStore,
        lock: NodeLock,
        folders: ClaimFolders,
        node: Callable[[], SimulatedNode | None],
        list_pods: ListPods,
        hardware: Hardware,
        directory: Path,
        tell_pod: TellPod,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`directory` outlives the agent; `clock`: seconds since the epoch."""
        self._store = store
        self._lock = lock
        self._folders = folders
        self._node = node
        self._list_pods = list_pods
        self._tell_pod = tell_pod
        self._places: dict[tuple[str, str], Place] = {}
        self._changed = asyncio.Event()
        self._listening = asyncio.Event()
        """There is a place whose pods are not known yet."""
        self._ending: set[asyncio.Task[None]] = set()
        self._strange: set[str] = set()
        self._machine = Machine()
        self._hardware = hardware
        self._clock = clock
        self._losses_path = directory / LOSSES
        self._losses: dict[str, Loss] | None = None

    def wake(self) -> None:
        """Claims were prepared or unprepared. Costs nothing."""
        self._changed.set()

    def faults_change(self) -> None:
        """Faults are about to come or go: until now it was as it was."""
        self._hardware.account()
        for place in self._places.values():
            place.board.processes()

    def faults_changed(self) -> None:
        """Faults came or went."""
        self._hardware.account()
        for place in self._places.values():
            self._hardware.tell(place.folder, place.view)

    def discard(self) -> None:
        """Leave nothing on a node that is none of ours any more."""
        remove(self._losses_path)

    @property
    def places(self) -> Iterable[Place]:
        """Every request that is listened to."""
        return self._places.values()

    def metrics(self) -> str:
        """The page of the devices' metrics; empty on a node that has none."""
        node = self._node()
        if node is None:
            return ""
        requests = [
            Shown(place.entry.name, place.view, place.pods, place.board.processes())
            for place in self.places
            if place.board.others is None
        ]
        return render(node, requests, self._machine.look(), self._hardware.counters())

    async def follow_pods(self) -> None:
        """Read the pods' annotations, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN if self._places else None):
                    await self._listening.wait()
            self._listening.clear()
            await self._read_annotations()
            await asyncio.sleep(PODS_SETTLE)

    async def run(self) -> None:
        """Have the sockets of what is prepared, until cancelled."""
        try:
            while True:
                self._changed.clear()
                async with self._lock.held():
                    self._store.refresh()
                    self._follow(self._store.prepared())
                await self._changed.wait()
                await asyncio.sleep(SETTLE)
        finally:
            self._leave(list(self._places))
            await asyncio.gather(*self._ending, return_exceptions=True)

    def _follow(self, prepared: Iterable[Entry]) -> None:
        """Have a socket for each request that is prepared, and for no other."""
        wanted = {
            (entry.uid, request): entry
            for entry in prepared
            for request in dict.fromkeys(base_name(held.request) for held in entry.devices)
        }
        self._leave([key for key, place in self._places.items() if self._is_over(place, wanted.get(key))])
        for (uid, request), entry in wanted.items():
            if (uid, request) not in self._places:
                self._listen(entry, request)
        if self._losses:
            here = {f"{uid}/{request}" for uid, request in wanted}
            self._losses = {key: loss for key, loss in self._losses.items() if key in here}

    def _is_over(self, place: Place, entry: Entry | None) -> bool:
        """Whether a claim is gone, or was given other devices, or its folder was made anew."""
        return entry is None or entry != place.entry or not (place.folder / claim_socket.NAME).exists()

    def _listen(self, entry: Entry, request: str) -> None:
        folder = Path(self._folders.path(entry.uid, request))
        try:
            view = orjson.loads((folder / VIEW).read_bytes())
            cores = [core for device in view["devices"] for core in device["core_ids"]]
            listener = claim_socket.bind(folder)
        except (OSError, ValueError, KeyError) as error:
            # the folder is whole again after the next prepare or reconcile, which wakes this one
            log.warning("the activity of claim %s cannot be heard: %s", entry, error, extra={"claim_uid": entry.uid})
            return
        looks_only = all(held.admin_access for held in entry.devices if base_name(held.request) == request)
        board = Board(() if looks_only else cores, clock=self._clock)
        board.hardware = functools.partial(self._hardware.of_view, view)
        self._hardware.tell(folder, view)
        if looks_only:
            board.others = functools.partial(self._of_others, view)
        served = claim_socket.ClaimSocket(listener, board, name=f"claim {entry}, request {request}")
        serving = asyncio.create_task(served.serve())
        self._listening.set()
        self._places[entry.uid, request] = Place(entry, request, folder, view, board, serving)

    def _of_others(self, view: Mapping[str, Any]) -> Iterator[Report]:
        """What runs on a view's cores by other claims, numbered as in the view."""
        node = self._node()
        if node is None:
            return
        physical_cores = node.instance_type.chip.physical_cores
        mine = {number: core for core, number in core_numbers(view, physical_cores=physical_cores).items()}
        for place in self.places:
            # a chip of another LNC has other cores, which have no numbers in this view
            same_lnc = place.view["logical_neuroncore_config"] == view["logical_neuroncore_config"]
            if place.board.others is None and same_lnc:
                numbers = core_numbers(place.view, physical_cores=physical_cores)
                renumbered = {core: mine[number] for core, number in numbers.items() if number in mine}
                for report in place.board.processes():
                    if seen := on_cores(report, renumbered):
                        yield seen

    def _leave(self, keys: Sequence[tuple[str, str]]) -> None:
        for key in keys:
            serving = self._places.pop(key).serving
            serving.cancel()
            self._ending.add(serving)
            serving.add_done_callback(self._ending.discard)

    async def _read_annotations(self) -> None:
        try:
            pods = await self._list_pods()
        except Exception as error:
            log.warning("the pods' activity profiles cannot be read: %s", error or type(error).__name__)
            return  # what was read before holds
        strange = {sentence: pod for pod in pods if (sentence := strange_profile(pod))}
        for sentence in strange.keys() - self._strange:
            log.warning("%s", sentence)
            await self._tell_pod(strange[sentence], sentence)
        self._strange = set(strange)
        found = users([place.entry for place in self._places.values()], pods)
        for place in self._places.values():
            place.pods = found[place.entry.uid]
            place.board.profile = self._profile(place, next(filter(None, map(wish_of, place.pods)), None))

    def _profile(self, place: Place, wish: Wish | None) -> Callable[[Sequence[int]], Report] | None:
        node = self._node()
        if wish is None or node is None:
            return None
        job = job_on(place.view, wish, node.instance_type.chip)

        def report(cores: Sequence[int]) -> Report:
            now = self._clock()
            found = self._trouble(place, now)
            loss = self._lose(place, found, job, now=now)
            return job.report(cores, now=now, loss=loss, found=found)

        return report

    def _trouble(self, place: Place, now: float) -> losses.Trouble | None:
        node = self._node()
        if node is None or not node.faults:
            return None
        return losses.trouble(node.faults, place.view, physical_cores=node.instance_type.chip.physical_cores, now=now)

    def _lose(self, place: Place, found: losses.Trouble | None, job: Job, *, now: float) -> Loss | None:
        """What a job has lost until now; None of one that was never in trouble."""
        known = self._known_losses()
        key = f"{place.entry.uid}/{place.request}"
        before = known.get(key)
        looked, place.looked = place.looked, now - job.wish.since
        if before is None and found is None:
            return None
        # what was told as done is done, though a fault is heard of later than it begins
        before = before or Loss(until=looked)
        loss = losses.advance(before, found, executions=job.executions, born=job.wish.since, now=now)
        known[key] = loss
        if (loss.failed, loss.timed_out, loss.unbegun) != (before.failed, before.timed_out, before.unbegun):
            try:
                write_atomically(self._losses_path, orjson.dumps(losses.written(known)))
            except DiskError as error:
                log.warning("what faults cost is not kept: %s", error)
        return loss

    def _known_losses(self) -> dict[str, Loss]:
        if self._losses is None:
            try:
                self._losses = losses.read(orjson.loads(self._losses_path.read_bytes()))
            except FileNotFoundError:
                self._losses = {}
            except (OSError, ValueError, TypeError, AttributeError) as error:
                log.warning("%s cannot be read (%s): counts begin anew", self._losses_path, error)
                self._losses = {}
        return self._losses
