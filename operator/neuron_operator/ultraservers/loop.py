"""The loop of the UltraServers: wake up, look, plan, apply; beside the ``Reconciler``, by the same means.

It shares the fleet state, and waits until that is complete. Claims and templates are not watched but listed, and only
while there are workloads: of claims those that were made from workloads' templates, and all of them when nodes are
wanted, because somebody else may have devices there.

It spares the API server and itself: it is away for some ten times as long as a look took, for longer while somebody
waits for nodes, and NeuronUltraServers, which follow every change of 5,000 nodes, are written every few seconds only.

What it commits in a workload's status, the Reconciler brings to the nodes: it is woken after every pass that wrote.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from neuron_operator import kube, metrics, names
from neuron_operator.extender.watching import follow
from neuron_operator.fleet import NODES_ON_THE_LOOP, Fleet
from neuron_operator.kept import Kept
from neuron_operator.kube import Api, ApiError, Kube, NotFound
from neuron_operator.ledger import Held, Ledger
from neuron_operator.ultraservers import applying, workloads
from neuron_operator.ultraservers.planning import Plan, World, plan

# each costs kube-scheduler 4 µs (nodeaffinity, parsed anew) for every node that it tries for a pod with a claim
MOST_DEVICES = 32

_DEBOUNCE = 0.2
_DEBOUNCE_IF_CROWDED = 2.0
_REST = 10
_REST_AT_MOST = 2.0
_TABLES_EVERY = 3.0
_SOON = 2.0
_LATER = 15.0
_BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

Json = dict[str, Any]

logger = logging.getLogger(__name__)


class UltraServers:
    """Gives nodes of UltraServers to workloads."""

    def __init__(
        self,
        *,
        api: Api,
        fleet: Fleet,
        driver_name: str,
        namespace: str,
        wrote: Callable[[], None],
        ledger: Ledger,
        most_devices: int = MOST_DEVICES,
        barrier: bool = False,
    ) -> None:
        """`wrote` is called after every pass that may have changed who has which node. UltraServers are devices, too,
        while there are at most `most_devices` of them; with `barrier` each has the commit barrier of gangs as well.
        """
        self._api = api
        self._fleet = fleet
        self._driver_name = driver_name
        self._namespace = namespace
        self._wrote = wrote
        self._changed = asyncio.Event()
        self._failures = 0
        self._asked: set[str] = set()
        self._most_devices = most_devices
        self._barrier = barrier
        self._ledger = ledger
        ledger.listen("workloads", self.gangs_moved)
        self.slices: Kept[Json] = Kept(_without_managed_fields, lambda *_: self.wake(), self.wake)
        """The UltraServers as devices."""

    def wake(self) -> None:
        """Something changed."""
        self._changed.set()

    def gangs_moved(self) -> None:
        """Gangs have other nodes. That matters to workloads only; without any, each gang would cost a look at all."""
        if self._fleet.workloads.values():
            self.wake()

    async def run(self) -> NoReturn:
        """Go on until cancelled."""
        tables_at = 0.0
        while True:
            self._changed.clear()
            started = time.monotonic()
            with_tables = started >= tables_at
            if with_tables:
                tables_at = started + _TABLES_EVERY
            done = await self.look(datetime.now(UTC), with_tables=with_tables)
            await self._pause(done, took=time.monotonic() - started, tables_due=not with_tables)

    async def follow(self, api: Kube) -> None:
        """Follow the slices of UltraServers until cancelled."""
        fields = f"spec.driver={names.ULTRASERVER_DRIVER_NAME}"
        await follow(api, kube.SLICES, listed=self.slices.listed, seen=self.slices.seen, fields=fields)

    async def look(self, now: datetime, *, with_tables: bool = True) -> Plan | None:
        """Look, plan and apply once; None if the cluster could not be looked at."""
        done: Plan | None = None
        failed = 0
        try:
            if self._fleet.snapshot() is not None and self._promised() is not None:
                done = await self._plan(now, with_tables=with_tables)
                failed = await applying.apply(
                    done, api=self._api, fleet=self._fleet, slices=self.slices, asked=self._asked
                )
                _report(self._fleet)
        except ApiError as error:
            logger.warning("UltraServers cannot be looked at, will try again: %s", error)
            failed = 1
        self._failures = self._failures + 1 if failed else 0
        if done and (done.statuses or done.removals or done.additions):
            self._changed.set()
            self._wrote()
        elif done and (done.tables or done.slices.writes):
            self._changed.set()  # their statuses are next, or what is left of them
        return done

    async def _plan(self, now: datetime, *, with_tables: bool) -> Plan:
        world = await self._look(all_claims=False)
        if not world.workloads and len(world.nodes) > NODES_ON_THE_LOOP:
            return await asyncio.to_thread(plan, world, now=now, with_tables=with_tables)  # which promises nothing
        done = plan(world, now=now, with_tables=with_tables)
        if done.incomplete:
            done = plan(await self._look(all_claims=True), now=now, with_tables=with_tables)
        for status in done.statuses:
            nodes = [node for each in status.status.get("sets") or () for node in each["nodes"]]
            owner = workloads.owner(f"{status.namespace}/{status.name}")
            self._ledger.pledge("workloads", owner, version=status.version or "", nodes=nodes)
        return done

    def _promised(self) -> Mapping[str, str] | None:
        """The nodes that gangs have, once that is known; tells what workloads have. Nothing may wait between this and
        the pledges that follow from it.
        """
        items = [workloads.read(item) for item in self._fleet.workloads.values()]
        nodes: dict[str, set[str]] = {item.uid: set() for item in items}
        for node, item in workloads.holders(items).items():
            nodes[item.uid].add(node)
        held = {
            workloads.owner(item.ref): Held(item.item["metadata"]["resourceVersion"], frozenset(nodes[item.uid]))
            for item in items
        }
        self._ledger.report("workloads", held)
        return self._ledger.others("workloads")

    async def _look(self, *, all_claims: bool) -> World:
        items = self._fleet.workloads.values()
        if not items:
            self._asked.clear()
        claims: list[Json] = []
        templates: list[Json] = []
        if items:
            claims = (await self._api.list(kube.CLAIMS, labels="" if all_claims else names.LABEL_WORKLOAD)).items
            templates = await self._templates(items)
        return World(
            namespace=self._namespace,
            driver_name=self._driver_name,
            nodes=self._fleet.nodes.values(),
            neuron_nodes=self._fleet.neuron_nodes.values(),
            # read again: what was taken in while claims were listed is newer, and so is what it leads to
            workloads=self._fleet.workloads.values(),
            ultraservers=self._fleet.ultraservers.values(),
            claims=claims,
            all_claims=all_claims or not items,
            templates=templates,
            asked=self._asked,
            promised=self._promised() or {},
            slices=tuple(self.slices.values.values()) if self.slices.complete else None,
            most_devices=self._most_devices,
            barrier=self._barrier,
        )

    async def _templates(self, items: list[Json]) -> list[Json]:
        """The templates of the workloads; where one has none, whatever else has its name."""
        found = (await self._api.list(kube.CLAIM_TEMPLATES, labels=names.LABEL_WORKLOAD)).items
        known = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in found}
        for workload in map(workloads.read, items):
            if workload.nodes and (workload.namespace, workload.template) not in known:
                try:
                    found.append(
                        await self._api.get(kube.CLAIM_TEMPLATES, workload.template, namespace=workload.namespace)
                    )
                except NotFound:
                    continue
        return found

    async def _pause(self, done: Plan | None, *, took: float, tables_due: bool) -> None:
        if self._failures:
            await asyncio.sleep(_BACKOFF[min(self._failures, len(_BACKOFF)) - 1])
            return
        try:
            soon = _SOON if done is None or done.unsettled else _TABLES_EVERY if tables_due else _LATER
            async with asyncio.timeout(soon):
                await self._changed.wait()
        except TimeoutError:
            return
        # of the commitments that were just made, and not of what others do, there is more to write
        crowded = done is not None and done.crowded and not done.statuses
        debounce = _DEBOUNCE_IF_CROWDED if crowded else _DEBOUNCE
        await asyncio.sleep(max(debounce, min(_REST * took, _REST_AT_MOST)))


def _without_managed_fields(item: Mapping[str, Any]) -> Json:
    metadata: Mapping[str, Any] = item["metadata"]
    return {**item, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def _report(fleet: Fleet) -> None:
    for gauge, store in (
        (metrics.ULTRASERVERS, fleet.ultraservers),
        (metrics.ULTRASERVER_WORKLOADS, fleet.workloads),
    ):
        gauge.clear()
        for state, count in Counter((i.get("status") or {}).get("state") or "Pending" for i in store.values()).items():
            gauge.labels(state).set(count)
