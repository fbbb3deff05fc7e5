"""Carrying out a plan: a few writes at a time, each answer straight back into the fleet state.

A write that fails does not stop the others; what remains is in the next plan. Each step waits for the one
before it: Events come before the statuses that make them unnecessary (``conditions`` explains the order), and
NeuronNodes before labels, so that nobody is sent to a node that has nothing yet.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from neuron_operator import kube, metrics
from neuron_operator.fleet import Fleet
from neuron_operator.kube import Api, ApiError, Conflict, NotFound
from neuron_operator.planning import Deletion, FaultStatus, NodeHealth, NodeLabels, Plan, PoolStatus

T = TypeVar("T")

_AT_ONCE = 8

logger = logging.getLogger(__name__)


async def apply(plan: Plan, *, api: Api, fleet: Fleet) -> int:
    """Write what the plan names; returns how many writes failed."""
    writer = _Writer(api, fleet)
    failed = 0
    failed += await each(plan.deletions, writer.delete, "NeuronNode", "delete")
    failed += await each(plan.node_deletions, writer.delete_node, "Node", "delete")
    failed += await each(plan.new_nodes, writer.create_node, "Node", "create")
    failed += await each(plan.neuron_nodes, writer.apply_neuron_node, "NeuronNode", "apply")
    failed += await each(plan.labels, writer.apply_labels, "Node", "apply")
    unsent = await each(plan.events, writer.send, "Event", "create")
    # without its Event a status change would go untold for ever
    if unsent == 0:
        failed += await each(plan.statuses, writer.write_status, "NeuronNodePool", "patch")
        failed += await each(plan.fault_statuses, writer.write_fault_status, "NeuronFault", "patch")
        failed += await each(plan.node_health, writer.write_health, "Node", "patch")
    return failed + unsent


async def each(items: Iterable[T], write: Callable[[T], Awaitable[None]], kind: str, verb: str) -> int:
    """Write items, a few at a time; returns how many writes failed. They are counted and logged here."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> int:
        async with gate:
            try:
                await write(item)
            except ApiError as error:
                metrics.WRITES.labels(kind, verb, "failed").inc()
                logger.warning("%s of a %s failed, will be tried again: %s", verb, kind, error)
                return 1
            metrics.WRITES.labels(kind, verb, "done").inc()
            return 0

    return sum(await asyncio.gather(*(one(item) for item in items)))


class _Writer:
    def __init__(self, api: Api, fleet: Fleet) -> None:
        self._api = api
        self._fleet = fleet

    async def delete(self, deletion: Deletion) -> None:
        with suppress(NotFound):
            await self._api.delete(kube.NEURON_NODES, deletion.name, uid=deletion.uid)
        self._fleet.neuron_nodes.forget(deletion.name)

    async def delete_node(self, deletion: Deletion) -> None:
        with suppress(NotFound):
            await self._api.delete(kube.NODES, deletion.name, uid=deletion.uid)
        self._fleet.nodes.forget(deletion.name)

    async def create_node(self, node: kube.Json) -> None:
        # A node of somebody else that came meanwhile is a conflict, and in the next plan's conditions.
        self._fleet.nodes.observe(await self._api.create(kube.NODES, node))

    async def apply_neuron_node(self, item: kube.Json) -> None:
        # Nobody else writes the spec, so whoever changed it by hand is overruled.
        self._fleet.neuron_nodes.observe(await self._api.apply(kube.NEURON_NODES, item, force=True))

    async def apply_labels(self, change: NodeLabels) -> None:
        # The UID keeps a node that has gone from being created anew by the apply.
        metadata: kube.Json = {"name": change.node, "uid": change.uid}
        if change.gone is not None:
            merged = {"uid": change.uid, "labels": {**change.labels, **dict.fromkeys(change.gone)}}
            self._fleet.nodes.observe(await self._api.merge(kube.NODES, change.node, {"metadata": merged}))
            return
        if change.labels:  # an empty map would stay ours in managedFields
            metadata["labels"] = dict(change.labels)
        body = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
        try:
            self._fleet.nodes.observe(await self._api.apply(kube.NODES, body, force=False))
        except Conflict:
            # Somebody else took a label, or the node was replaced: look again, for the next plan.
            self._fleet.nodes.observe(await self._api.get(kube.NODES, change.node))
            raise

    async def send(self, event: kube.Json) -> None:
        # there already: sent by an operator that was stopped before it wrote the status
        with suppress(Conflict):
            await self._api.create(kube.EVENTS, event)

    async def write_health(self, health: NodeHealth) -> None:
        with suppress(NotFound):  # deleted meanwhile
            self._fleet.nodes.observe(await self._api.patch_conditions(health.node, health.conditions))

    async def write_status(self, status: PoolStatus) -> None:
        with suppress(NotFound):  # deleted meanwhile
            self._fleet.pools.observe(await self._api.merge_status(kube.POOLS, status.pool, status.status))

    async def write_fault_status(self, status: FaultStatus) -> None:
        with suppress(NotFound):  # healed meanwhile
            self._fleet.faults.observe(await self._api.merge_status(kube.FAULTS, status.fault, status.status))
