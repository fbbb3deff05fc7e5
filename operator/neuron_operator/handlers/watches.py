"""Watches that feed the fleet state.

Only ``on.event`` handlers: they write nothing on the objects that they see, where kopf's change-detecting
handlers would leave finalizers and annotations on everybody's nodes. A wake-up is all that follows from an
event; ``reconciler`` does the rest.

Nodes and NeuronNodes, of which there may be thousands, do not come by kopf: for each event of each object it makes a
worker and copies of the object, which costs more than all the rest that an event leads to.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import kopf

from neuron_operator import kube
from neuron_operator.extender.watching import follow
from neuron_operator.fleet import Fleet, Store
from neuron_operator.kube import Kube
from neuron_operator.nodes import same_but_reserved

Json = dict[str, Any]


def register(
    registry: kopf.OperatorRegistry,
    *,
    fleet: Fleet,
    wake: Callable[[bool], None],
    fault: Callable[[Json], None],
) -> None:
    """Watch what people write: ``wake(relist)`` is called on changes, ``fault`` with faults."""
    _watch(registry, kube.POOLS, fleet.pools, wake)
    _watch(registry, kube.FAULTS, fleet.faults, wake, fault)
    _watch(registry, kube.ULTRASERVER_WORKLOADS, fleet.workloads, wake)
    _watch(registry, kube.ULTRASERVERS, fleet.ultraservers, wake)

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


async def follow_nodes(api: Kube, *, fleet: Fleet, wake: Callable[[bool], None], reserved: Callable[[], None]) -> None:
    """Watch nodes and NeuronNodes; does not end. `reserved` is called where only the reservation by a gang changed."""

    def node_seen(item: Json, deleted: bool) -> None:
        name = item["metadata"]["name"]
        before = fleet.nodes.get(name)
        if not fleet.nodes.observe(item, deleted=deleted):
            return
        after = fleet.nodes.get(name)
        if before is not None and after is not None and same_but_reserved(before, after):
            reserved()
        else:
            wake(False)

    async with asyncio.TaskGroup() as group:
        listed, _ = observers(fleet.nodes, wake)
        group.create_task(follow(api, kube.NODES, listed=listed, seen=node_seen))
        listed, seen = observers(fleet.neuron_nodes, wake)
        group.create_task(follow(api, kube.NEURON_NODES, listed=listed, seen=seen))


def observers(
    store: Store[Any], wake: Callable[[bool], None]
) -> tuple[Callable[[Iterable[Json], float], None], Callable[[Json, bool], None]]:
    """What a list of a kind leads to, and what one of its events."""

    def listed(items: Iterable[Json], _asked: float) -> None:
        for item in items:
            store.observe(item)
        wake(True)  # what was deleted meanwhile is not in it

    def seen(item: Json, deleted: bool) -> None:
        if store.observe(item, deleted=deleted):
            wake(False)

    return listed, seen


def settings() -> kopf.OperatorSettings:
    """Make kopf a watcher only: no peering, no Events of its own, no watch on CRDs and namespaces."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    return chosen


def _watch(
    registry: kopf.OperatorRegistry,
    resource: kube.Resource,
    store: Store[Any],
    wake: Callable[[bool], None],
    tell: Callable[[Json], None] | None = None,
) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        item = cast(Json, event["object"])
        changed = store.observe(item, deleted=event["type"] == "DELETED")
        # kopf lists (type None) at the start and after a break; what was deleted in the break it cannot tell
        listed = event["type"] is None
        if changed and tell is not None:
            tell(item)
        if changed or listed:
            wake(listed)
