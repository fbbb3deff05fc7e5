"""Watches that feed the fleet state.

Only ``on.event`` handlers: they write nothing on the objects that they see, where kopf's change-detecting
handlers would leave finalizers and annotations on everybody's nodes. A wake-up is all that follows from an
event; ``reconciler`` does the rest.
"""

from collections.abc import Callable
from typing import Any, cast

import kopf

from neuron_operator import kube
from neuron_operator.fleet import Fleet, Store

Json = dict[str, Any]


def register(
    registry: kopf.OperatorRegistry,
    *,
    fleet: Fleet,
    wake: Callable[[bool], None],
    fault: Callable[[Json], None],
) -> None:
    """Watch all kinds that plans are made from: ``wake(relist)`` is called on changes, ``fault`` with faults."""
    _watch(registry, kube.POOLS, fleet.pools, wake)
    _watch(registry, kube.NEURON_NODES, fleet.neuron_nodes, wake)
    _watch(registry, kube.FAULTS, fleet.faults, wake, fault)
    _watch(registry, kube.ULTRASERVER_WORKLOADS, fleet.workloads, wake)
    _watch(registry, kube.ULTRASERVERS, fleet.ultraservers, wake)
    _watch(registry, kube.NODES, fleet.nodes, wake)

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


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
