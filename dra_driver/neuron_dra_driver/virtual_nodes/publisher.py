"""Keeps the slices of all virtual nodes as their NeuronNodes say, and says so in the status of these.

Two watches, for the whole fleet, bring what is wished and what there is; a node about which either says something new
is due, and a few writers take the nodes that are due one by one. So an event costs one node's work, whatever the size
of the fleet, and a fault on a node does not wait behind a thousand new ones: who was published before goes first, then
who is new, then the statuses.

Whatever fails is tried again after a pause that grows, for that node alone. A watch that breaks begins with a list.
Slices stay when this process stops; the next one finds them as they should be and writes nothing (`ledger`).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..agent.status import Readiness, neuron_node_status
from ..kubeletplugin import ApiError
from ..kubeletplugin.backoff import Backoff
from .device_page import DevicePage
from .ledger import Record, Write, plan, read
from .metrics import FleetMetrics
from .slices_api import SlicesApi
from .wanted import Wanted, wanted

Object = dict[str, Any]

WRITERS = 16
"""Calls at a time: what the API server needs to be busy, and not more (it is the bottleneck, and others need it)."""
SETTLE, SETTLE_MAX, CALM = 0.2, 30.0, 60.0
"""Seconds before undoing what others did to a slice, which doubles against someone who keeps at it, and until it is
forgotten."""
RETRY, RETRY_MAX = 0.5, 30.0

_SERVING = Readiness(True, "Serving", "the devices are published; KWOK plays the pods that get them")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Node:
    """A node that is wished for, or whose slices are there."""

    neuron_node: Object | None = None
    """What tells whether it changed, with the status that it is about to have; None: there is none."""
    wanted: Wanted | None = None
    records: dict[str, Record] = field(default_factory=dict)
    failures: int = 0
    contested: Backoff | None = None
    repaired: float = 0.0


class Publisher:
    """See the module."""

    def __init__(
        self,
        api: SlicesApi,
        *,
        driver: str,
        efa: bool,
        counters: Callable[[], Awaitable[bool]],
        metrics: FleetMetrics,
        devices: DevicePage,
    ) -> None:
        """`counters`: whether the API server keeps them; `devices` is told which nodes there are."""
        self._api = api
        self._driver = driver
        self._efa = efa
        self._ask_counters = counters
        self._counters: bool | None = None
        self._metrics = metrics
        self._devices = devices
        self._nodes: dict[str, _Node] = {}
        self._queues: tuple[deque[str], deque[str], deque[str]] = (deque(), deque(), deque())
        """Nodes whose slices are due and were there before, those that are new, and those whose status is due."""
        self._due: set[str] = set()
        self._status_due: set[str] = set()
        self._at_work: set[str] = set()
        self._there = asyncio.Semaphore(0)
        """As many as there are entries in the queues."""
        self._listed = asyncio.Event()
        """Set when both kinds are known: only then can a slice be told to be missing, or a node to be gone."""
        self._known = {"neuron nodes": False, "slices": False}

    @property
    def known(self) -> bool:
        """Whether both kinds were listed."""
        return self._listed.is_set()

    async def write(self) -> None:
        """Do what is due, for ever; one of several."""
        while True:
            await self._listed.wait()
            await self._there.acquire()
            urgent, new, statuses = self._queues
            if urgent or new:
                name = (urgent or new).popleft()
                await self._exclusively(name, self._due, self._publish)
            elif statuses:
                await self._exclusively(statuses.popleft(), self._status_due, self._report)

    async def follow_neuron_nodes(self) -> None:
        """From a list on, for as long as the watch lasts."""
        if self._counters is None:
            self._counters = await self._ask_counters()
        items, version = await self._api.neuron_nodes()
        gone = {name for name, node in self._nodes.items() if node.wanted} - {i["metadata"]["name"] for i in items}
        for item in items:
            self._wish(item)
        for name in gone:
            self._unwish(name)
        self._now_known("neuron nodes")
        await self._api.watch_neuron_nodes(version, self._neuron_node_changed)

    async def follow_slices(self) -> None:
        """From a list on, for as long as the watch lasts."""
        records, version = await self._api.slices()
        there = {record.uid for record in records}
        listed = int(version)
        for name, node in self._nodes.items():
            lost = [r.name for r in node.records.values() if r.uid not in there and r.version <= listed]
            for slice_name in lost:
                del node.records[slice_name]
            if lost:
                self._enqueue(name)
        for record in records:
            self._found(record)
        self._now_known("slices")
        await self._api.watch_slices(version, self._slice_changed)

    # --- what is known

    def _now_known(self, kind: str) -> None:
        self._known[kind] = True
        if all(self._known.values()) and not self.known:
            self._listed.set()
            for name, node in self._nodes.items():
                if plan(node.wanted, node.records):
                    self._enqueue(name)

    def _neuron_node_changed(self, kind: str, item: Object) -> None:
        if kind == "DELETED":
            self._unwish(item["metadata"]["name"])
        else:
            self._wish(item)

    def _slice_changed(self, kind: str, item: Object) -> None:
        if kind == "DELETED":
            self._lost(read(item))
        else:
            self._found(read(item))

    def _wish(self, item: Object) -> None:
        metadata = item["metadata"]
        if "deletionTimestamp" in metadata:
            self._unwish(metadata["name"])
            return
        node = self._nodes.setdefault(metadata["name"], _Node())
        told = {
            "metadata": {key: metadata.get(key) for key in ("uid", "generation", "ownerReferences")},
            "status": item.get("status") or {},
        }
        if told == node.neuron_node:
            return  # our own status, come back
        node.neuron_node = told
        found = wanted(item, driver=self._driver, efa=self._efa, counters=bool(self._counters))
        if found.content.model:
            self._devices.node_is(item, found.content.model)
        else:
            self._devices.node_is_gone(metadata["name"])
        if found != node.wanted:
            node.wanted = found
            self._enqueue(metadata["name"])
        else:
            self._enqueue_status(metadata["name"])

    def _unwish(self, name: str) -> None:
        self._devices.node_is_gone(name)
        node = self._nodes.get(name)
        if node is not None:
            node.neuron_node = node.wanted = None
            self._enqueue(name)

    def _found(self, record: Record) -> None:
        node = self._nodes.setdefault(record.node, _Node())
        known = node.records.get(record.name)
        if known is None or known.version < record.version:
            node.records[record.name] = record
            if known is None or (known.generation, known.stamp) != (record.generation, record.stamp):
                self._contest(record.node, node)

    def _lost(self, record: Record) -> None:
        node = self._nodes.get(record.node)
        known = node.records.get(record.name) if node else None
        if node and known and known.uid == record.uid:
            del node.records[record.name]
            self._contest(record.node, node)

    def _contest(self, name: str, node: _Node) -> None:
        """Somebody else wrote or deleted: have a look, not at once if that was so a moment ago."""
        if not self.known or not plan(node.wanted, node.records):
            return
        node.contested = node.contested or Backoff(SETTLE, SETTLE_MAX, calm=CALM)
        clock = asyncio.get_running_loop()
        pause = node.contested.next(lasted=clock.time() - node.repaired)
        node.repaired = clock.time()
        clock.call_later(pause, self._enqueue, name)

    # --- what is due

    def _enqueue(self, name: str) -> None:
        if name not in self._due:
            self._due.add(name)
            node = self._nodes.get(name)
            self._queues[0 if node and node.records else 1].append(name)
            self._there.release()

    def _enqueue_status(self, name: str) -> None:
        if name not in self._status_due:
            self._status_due.add(name)
            self._queues[2].append(name)
            self._there.release()

    async def _exclusively(self, name: str, due: set[str], work: Callable[[str, _Node], Awaitable[None]]) -> None:
        """One writer at a time for a node."""
        due.discard(name)
        node = self._nodes.get(name)
        if node is None:
            return
        again = self._enqueue if due is self._due else self._enqueue_status
        if name in self._at_work:
            asyncio.get_running_loop().call_later(0.01, again, name)
            return
        self._at_work.add(name)
        try:
            await work(name, node)
            node.failures = 0
        except Exception as error:
            pause = min(RETRY * 2**node.failures, RETRY_MAX)
            node.failures += 1
            self._metrics.failures.inc()
            unexpected = not isinstance(error, ApiError | OSError)
            reason = error or type(error).__name__
            log.warning("node %s: %s; trying again in %.1f s", name, reason, pause, exc_info=unexpected)
            asyncio.get_running_loop().call_later(pause, again, name)
        finally:
            self._at_work.discard(name)

    async def _publish(self, name: str, node: _Node) -> None:
        todo = plan(node.wanted, node.records)
        for record in todo.deletes:
            await self._api.delete(record)
            node.records.pop(record.name, None)
            self._metrics.deletes.inc()
        for write in todo.writes:
            record = await self._written(name, write)
            self._metrics.writes.inc()
            known = node.records.get(write.name)
            if known is None or known.version < record.version:  # the watch may have been faster, and seen more
                node.records[write.name] = record
        if node.wanted is None and not node.records:
            self._nodes.pop(name, None)
        elif name not in self._due:  # else it changed meanwhile, or somebody has the name
            self._enqueue_status(name)
        self._metrics.nodes.set(len(self._nodes))

    async def _written(self, node_name: str, write: Write) -> Record:
        try:
            return await self._api.write(write)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            # another one than was thought, or none: judged anew with what is there
            found = await self._api.slice(write.name)
            if found is None:
                if node := self._nodes.get(node_name):
                    node.records.pop(write.name, None)
                raise
            self._enqueue(node_name)
            return found

    async def _report(self, name: str, node: _Node) -> None:
        if node.neuron_node is None or node.wanted is None or name in self._due or plan(node.wanted, node.records):
            return
        problem = node.wanted.content.problem
        status = neuron_node_status(
            node.neuron_node,
            readiness=_SERVING if problem is None else Readiness(False, problem.reason, str(problem)),
            devices=node.wanted.content.chips,
            prepared_claims=0,
            other_road_claims=0,
            quarantined=(),
            now=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        if record := self._devices.record(name):
            status["hardwareRecord"] = record
        before = node.neuron_node
        current: Mapping[str, Any] = before["status"]
        if status == {key: current.get(key) for key in status}:
            return
        # now, because the watch may be faster than the answer
        reported = node.neuron_node = {**before, "status": {**current, **status}}
        try:
            await self._api.report(name, status)
        except Exception as error:
            if node.neuron_node is reported:
                node.neuron_node = before
            if isinstance(error, ApiError) and error.status == 404:
                return  # deleted meanwhile
            raise
        self._metrics.statuses.inc()
