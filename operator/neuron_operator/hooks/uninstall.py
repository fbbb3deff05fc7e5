"""Before an uninstall: refuse while devices are in use, else leave nothing behind.

Without its driver a kubelet cannot unprepare a claim and holds the pod Terminating for ever, so pods that hold
our devices, chips, EFA cards or UltraServers, have to go first. Then the pools are deleted, and what follows from that
is done here by the same pure plan as in the operator, whether or not the operator is alive: it does not run while real
Neuron is in the cluster, and that is when people uninstall. Both may do it at once, every write can be made twice.
Resources of our device plugin, which the kubelet still reports for a moment, are nobody's concern any more.

The slices are the agents' to delete, those of UltraServers the operator's. Where one of these is gone, its slices are
deleted here after half of the time. A pod that got a device between the first look and the deletion of the pools is
waited for: the agents are still there, and Helm leaves them while this fails.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from neuron_operator import applying, kube, names
from neuron_operator.fleet import Fleet
from neuron_operator.gangs.taints import reserve, taints
from neuron_operator.hooks.definitions import Say
from neuron_operator.kube import Api, ApiError, Conflict, NotFound
from neuron_operator.planning import plan

Json = dict[str, Any]

_POLL = 1.0
_LOOKS = 5
"""How often a claim is looked at again that is free in a moment: its controller writes that after the pod is gone."""


def holders(claims: Iterable[Mapping[str, Any]], *, driver_names: Collection[str]) -> list[str]:
    """Who holds devices of these drivers, as ``namespace/pod (claim)``."""
    found = set()
    for claim in claims:
        status = claim.get("status") or {}
        results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
        if not any(result["driver"] in driver_names for result in results):
            continue
        namespace, name = claim["metadata"]["namespace"], claim["metadata"]["name"]
        for consumer in status.get("reservedFor") or ():
            kind = "" if consumer["resource"] == "pods" else f"{consumer['resource']} "
            found.add(f"{namespace}/{kind}{consumer['name']} ({name})")
    return sorted(found)


@dataclass(frozen=True, slots=True)
class _Left:
    """What still has to go."""

    neuron_nodes: int
    reserved_nodes: int
    labelled_nodes: int
    slices: list[Json]
    holders: list[str]

    def __str__(self) -> str:
        parts = [
            f"{self.neuron_nodes} NeuronNodes" if self.neuron_nodes else "",
            f"reservations of {self.reserved_nodes} nodes" if self.reserved_nodes else "",
            f"labels on {self.labelled_nodes} nodes" if self.labelled_nodes else "",
            f"{len(self.slices)} ResourceSlices" if self.slices else "",
            f"pods that got a device meanwhile: {', '.join(self.holders)}" if self.holders else "",
        ]
        return ", ".join(filter(None, parts))


async def uninstall(api: Api, *, driver_name: str, timeout: float, say: Say) -> int:
    """Clean up; returns an exit code, 1 with nothing touched while devices are in use."""
    if in_use := await _settled(api, driver_name=driver_name, looks=min(_LOOKS, int(timeout))):
        say("Pods hold simulated devices and would never terminate without the driver:")
        for line in in_use:
            say(f"  {line}")
        say("Delete these pods, then uninstall again. Nothing was changed.")
        return 1
    await _delete_workloads(api, say=say)
    await _delete_all(api, kube.POOLS, "NeuronNodePool", say=say)
    await _delete_all(api, kube.FAULTS, "NeuronFault", say=say)

    loop = asyncio.get_running_loop()
    start = loop.time()
    told = ""
    left = await _clean(api, driver_name=driver_name)
    while str(left):
        if str(left) != told:
            told = str(left)
            say(f"waiting for {told}")
        waited = loop.time() - start
        if waited > timeout:
            say(f"gave up after {timeout:g} s; still there: {told}. Uninstall again, it goes on from here.")
            return 1
        if waited > timeout / 2 and not left.holders:
            await _delete_slices(api, left.slices, say=say)
        await asyncio.sleep(_POLL)
        left = await _clean(api, driver_name=driver_name)
    for item in await _items(api, kube.ULTRASERVERS, labels=f"{names.LABEL_SIMULATED}=true"):
        await api.delete(kube.ULTRASERVERS, item["metadata"]["name"], namespace=item["metadata"]["namespace"])
    say("nothing is left")
    return 0


async def _delete_all(api: Api, resource: kube.Resource, kind: str, *, say: Say) -> None:
    for item in await _items(api, resource):
        name = item["metadata"]["name"]
        say(f"deleting {kind} {name}")
        try:
            await api.delete(resource, name)
        except NotFound:
            continue


async def _delete_workloads(api: Api, *, say: Say) -> None:
    """Delete the workloads that have our finalizer, and let them go: nobody has devices. Others may be AWS's."""
    for item in await _items(api, kube.ULTRASERVER_WORKLOADS):
        metadata = item["metadata"]
        name, namespace, finalizers = metadata["name"], metadata["namespace"], metadata.get("finalizers") or ()
        if names.FINALIZER_ULTRASERVERS not in finalizers:
            continue
        say(f"deleting NeuronUltraServerWorkload {namespace}/{name}")
        body = {"metadata": {"finalizers": [each for each in finalizers if each != names.FINALIZER_ULTRASERVERS]}}
        with contextlib.suppress(NotFound):
            await api.delete(kube.ULTRASERVER_WORKLOADS, name, namespace=namespace)
            await api.merge(kube.ULTRASERVER_WORKLOADS, name, body, namespace=namespace)


async def _clean(api: Api, *, driver_name: str) -> _Left:
    fleet = Fleet(driver_name=driver_name)
    fleet.foreign = ()
    nodes = await api.list(kube.NODES)
    fleet.nodes.replace(nodes.items, version=nodes.version)
    fleet.pools.replace(await _items(api, kube.POOLS), version=0)
    fleet.neuron_nodes.replace(await _items(api, kube.NEURON_NODES), version=0)
    fleet.faults.replace([], version=0)
    fleet.workloads.replace([], version=0)
    fleet.ultraservers.replace([], version=0)
    known = fleet.snapshot()
    assert known is not None
    snapshot = replace(known, nodes=[replace(node, neuron_capacity=()) for node in known.nodes])
    for item in nodes.items:
        if taints(item, None) is not None:
            with contextlib.suppress(NotFound, Conflict):  # gone, or changed meanwhile: in the next round
                await reserve(api, item["metadata"]["name"], None)
    await applying.apply(plan(snapshot, now=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")), api=api, fleet=fleet)
    return _Left(
        neuron_nodes=len(await _items(api, kube.NEURON_NODES)),
        reserved_nodes=sum(1 for item in nodes.items if taints(item, None) is not None),
        labelled_nodes=sum(1 for node in fleet.nodes.values() if node.own_labels or node.health),
        slices=[
            found
            for driver in _drivers(driver_name)
            for found in (
                await api.list(kube.SLICES, labels=f"{names.LABEL_SIMULATED}=true", fields=f"spec.driver={driver}")
            ).items
        ],
        holders=await _holders(api, driver_name=driver_name),
    )


def _drivers(driver_name: str) -> tuple[str, ...]:
    """The agents' drivers: of the chips, of the EFA cards, and of UltraServers."""
    return (driver_name, names.EFA_DRIVER_NAME, names.ULTRASERVER_DRIVER_NAME)


async def _holders(api: Api, *, driver_name: str) -> list[str]:
    return holders((await api.list(kube.CLAIMS)).items, driver_names=_drivers(driver_name))


async def _settled(api: Api, *, driver_name: str, looks: int) -> list[str]:
    """Who still holds devices after a moment: those of a pod that is just gone come free by themselves."""
    found = await _holders(api, driver_name=driver_name)
    for _ in range(looks):
        if not found:
            break
        await asyncio.sleep(_POLL)
        found = await _holders(api, driver_name=driver_name)
    return found


async def _items(api: Api, resource: kube.Resource, *, labels: str = "") -> list[Json]:
    """The objects of a kind of ours, none where its CRD is gone already."""
    try:
        return (await api.list(resource, labels=labels)).items
    except NotFound:
        return []


async def _delete_slices(api: Api, slices: Iterable[Json], *, say: Say) -> None:
    for item in slices:
        metadata = item["metadata"]
        say(f"deleting ResourceSlice {metadata['name']}, which nobody deleted")
        try:
            await api.delete(kube.SLICES, metadata["name"], uid=metadata["uid"])
        except ApiError as error:
            say(f"  not deleted: {error}")
