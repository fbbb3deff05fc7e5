"""The one loop that writes: wake up, look, plan, apply.

Watches only wake it; what it does depends on the state of the cluster and not on which event came, so a lost,
doubled or reordered event costs nothing. It waits a moment before it plans, because changes come in swarms.

Lists are read at the start, when a watch was restarted and every few minutes. A plan that could not be
carried out completely is made again after a pause that grows; where there was nothing to write and nothing
changed since, none is made.
"""

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime

from neuron_operator import applying, foreign, metrics, survey
from neuron_operator.fleet import NODES_ON_THE_LOOP, Fleet
from neuron_operator.kube import Api, ApiError
from neuron_operator.nodes import same_but_reserved
from neuron_operator.planning import Plan, Snapshot, plan

_DEBOUNCE = 0.1
# It is away for so many times as long as it planned, so that a fleet that changes all the time costs a tenth of a core.
_REST = 10
_REST_AT_MOST = 10.0
_LOOK_AROUND_EVERY = 30.0
_LIST_EVERY = 300.0
# a watch that starts reports every object as listed, one by one
_LIST_GAP = 5.0
_BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

logger = logging.getLogger(__name__)


class RealNeuronFound(Exception):
    """Real Neuron was in the cluster before we started."""


class Reconciler:
    """Keeps the cluster as the pools wish."""

    def __init__(self, *, api: Api, fleet: Fleet, driver_name: str) -> None:
        self._api = api
        self._fleet = fleet
        self._driver_name = driver_name
        self._changed = asyncio.Event()
        self._list_at = self._look_at = 0.0
        self._listed_at = 0.0
        self._failures = 0
        self._rest = 0.0
        self._plan_at: float | None = None
        """When a fault breaks or heals by its schedule, in seconds since the epoch."""
        self._settled: tuple[Snapshot, Plan] | None = None
        """What there was nothing to write for; None: there was something."""

    def wake(self, *, relist: bool = False) -> None:
        """Something changed; ``relist`` where deletions may have gone unseen."""
        if relist:
            self._list_at = min(self._list_at, self._listed_at + _LIST_GAP)
        self._changed.set()

    async def run(self) -> None:
        """Reconcile until cancelled; raises ``RealNeuronFound`` if the first look finds it."""
        first = True
        while True:
            self._changed.clear()
            done = await self.reconcile()
            if first and done is not None and done.refusal:
                raise RealNeuronFound(
                    f"Real AWS Neuron in this cluster, neuron-sim will not run: {foreign.summary(done.refusal)}"
                )
            first = first and done is None
            await self._pause()

    async def reconcile(self) -> Plan | None:
        """Look, plan and apply once; None if the cluster could not be looked at."""
        done: Plan | None = None
        failed = 0
        with metrics.RECONCILE_SECONDS.time():
            try:
                await self._survey()
                snapshot = self._fleet.snapshot()
                if snapshot is not None and self._is_settled(snapshot):
                    assert self._settled is not None
                    done = self._settled[1]
                elif snapshot is not None:
                    self._settled = None
                    done = await self._plan(snapshot)
                    self._plan_at = done.next_change
                    failed = await applying.apply(done, api=self._api, fleet=self._fleet)
                    if done.new_nodes:
                        self._changed.set()  # what they become is the next plan's
                    if done.empty:
                        self._settled = snapshot, done
                    _report(done, snapshot)
            except ApiError as error:
                logger.warning("the cluster cannot be looked at, will try again: %s", error)
                failed = 1
        if failed:
            metrics.RECONCILE_ERRORS.inc()
        self._failures = self._failures + 1 if failed else 0
        return done

    async def _plan(self, snapshot: Snapshot) -> Plan:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if len(snapshot.nodes) <= NODES_ON_THE_LOOP:
            self._rest = 0.0
            return plan(snapshot, now=now)
        done, took = await asyncio.to_thread(_timed_plan, snapshot, now)
        # while nodes are made, the next plan is what everybody waits for
        self._rest = 0.0 if done.new_nodes else min(_REST * took, _REST_AT_MOST)
        return done

    def _is_settled(self, snapshot: Snapshot) -> bool:
        if self._settled is None or (self._plan_at is not None and time.time() >= self._plan_at):
            return False
        before = self._settled[0]
        return (
            replace(snapshot, nodes=()) == replace(before, nodes=())
            and len(snapshot.nodes) == len(before.nodes)
            and all(
                now is then or same_but_reserved(now, then)
                for now, then in zip(snapshot.nodes, before.nodes, strict=True)
            )
        )

    async def _survey(self) -> None:
        now = time.monotonic()
        if now >= self._look_at:
            await survey.look_around(self._fleet, self._api, driver_name=self._driver_name)
            self._look_at = now + _LOOK_AROUND_EVERY
        if now >= self._list_at:
            # first the time, so that a break of a watch during the list leads to another one
            self._listed_at, self._list_at = now, now + _LIST_EVERY
            try:
                await survey.list_objects(self._fleet, self._api)
            except ApiError:
                self._list_at = now
                raise

    async def _pause(self) -> None:
        if self._failures:
            await asyncio.sleep(_BACKOFF[min(self._failures, len(_BACKOFF)) - 1])
            return
        idle = max(0.0, min(self._look_at, self._list_at) - time.monotonic())
        if self._plan_at is not None:
            idle = min(idle, max(0.0, self._plan_at - time.time()))
        try:
            async with asyncio.timeout(idle):
                await self._changed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(max(_DEBOUNCE, self._rest))


def _timed_plan(snapshot: Snapshot, now: str) -> tuple[Plan, float]:
    began = time.thread_time()
    return plan(snapshot, now=now), time.thread_time() - began


def _report(done: Plan, snapshot: Snapshot) -> None:
    metrics.FINDINGS.set(len(done.refusal))
    for gauge in (metrics.POOL_NODES, metrics.POOL_READY_NODES, metrics.POOL_DEVICES):
        gauge.clear()
    faults = {fault["metadata"]["name"]: fault.get("status") or {} for fault in snapshot.faults}
    faults |= {item.fault: item.status for item in done.fault_statuses}
    active = [any(c["status"] == "True" for c in status.get("conditions") or ()) for status in faults.values()]
    metrics.FAULTS.labels("true").set(sum(active))
    metrics.FAULTS.labels("false").set(len(active) - sum(active))
    statuses = {pool["metadata"]["name"]: pool.get("status") or {} for pool in snapshot.pools}
    statuses |= {item.pool: item.status for item in done.statuses}
    for pool, status in statuses.items():
        metrics.POOL_NODES.labels(pool).set(status.get("nodes", 0))
        metrics.POOL_READY_NODES.labels(pool).set(status.get("readyNodes", 0))
        metrics.POOL_DEVICES.labels(pool).set(status.get("devices", 0))
    if not done.empty:
        logger.info(
            "reconciled",
            extra={
                "nodesMade": len(done.new_nodes),
                "nodesDeleted": len(done.node_deletions),
                "neuronNodesApplied": len(done.neuron_nodes),
                "neuronNodesDeleted": len(done.deletions),
                "nodesLabelled": len(done.labels),
                "statusesWritten": len(done.statuses) + len(done.fault_statuses),
            },
        )
