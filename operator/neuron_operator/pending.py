"""Pods that wait for Neuron devices in vain, and the Events that tell them why (``notices`` sends them).

Some no DRA node can ever take, because a claim holds 32 devices at most: for a plain pod the scheduler makes one claim
of all the extended resources that DRA serves. `neuroncore: 64`, one trn2.48xlarge, cannot be one, and the scheduler's
words for it (`cannot allocate all claims`) do not say why. These are told at once. Others may only have to wait: they
are told when they have waited for a while, in the words of ``explaining``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_operator import conditions, names
from neuron_operator.roads import PlainPods

Json = dict[str, Any]

UNSCHEDULED = "status.phase=Pending,spec.nodeName="
"""Field selector of the pods that wait for a node."""

_KINDS = ("requests", "limits")


@dataclass(frozen=True, slots=True)
class Oversized:
    """A pod that asks for more devices than a claim can hold."""

    namespace: str
    name: str
    uid: str
    asked: Mapping[str, int]


def oversized(pod: Mapping[str, Any], *, resources: Sequence[str]) -> Oversized | None:
    """Judge a pod that waits for a node; `resources` are those that DRA serves."""
    metadata, wanted = pod["metadata"], asked(pod, resources)
    if sum(wanted.values()) <= names.DEVICES_PER_CLAIM:
        return None
    return Oversized(metadata["namespace"], metadata["name"], metadata["uid"], wanted)


def asked(pod: Mapping[str, Any], resources: Iterable[str]) -> dict[str, int]:
    """How much a pod asks for of those of these resources that it asks for at all."""
    spec = pod["spec"]
    running = list(spec.get("containers") or ())
    first = spec.get("initContainers") or ()
    # a sidecar has its devices beside those of the others, what an init container has is used again
    running += [container for container in first if container.get("restartPolicy") == "Always"]
    amounts = {resource: sum(_amount(container, resource) for container in running) for resource in resources}
    for container in first:
        amounts = {resource: max(amount, _amount(container, resource)) for resource, amount in amounts.items()}
    return {resource: amount for resource, amount in amounts.items() if amount}


def resources_of(pod: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the resources that containers of a pod ask for."""
    containers = (*(pod["spec"].get("containers") or ()), *(pod["spec"].get("initContainers") or ()))
    resources = (container.get("resources") or {} for container in containers)
    return tuple(dict.fromkeys(name for each in resources for kind in _KINDS for name in each.get(kind) or ()))


def _amount(container: Mapping[str, Any], resource: str) -> int:
    resources = container.get("resources") or {}
    for kind in _KINDS:
        amount = str((resources.get(kind) or {}).get(resource, ""))
        if amount.isdecimal():
            return int(amount)
    return 0


def too_many(amounts: Mapping[str, int]) -> str:
    """What such a pod asks for, why that cannot be, and what can."""
    wanted = " and ".join(f"{amount} {resource}" for resource, amount in amounts.items())
    return (
        f"The pod asks for {wanted}, and DRA serves that by one claim, which holds {names.DEVICES_PER_CLAIM} devices"
        f" at most: ask for whole chips instead, as {names.EXTENDED_RESOURCE} or in a ResourceClaim of the class"
        f" {names.DEVICE_CLASS}, or set resources: DevicePlugin in the NeuronNodePool"
    )


def event(found: Oversized, *, now: str) -> Json:
    """The Event of such a pod."""
    return conditions.event(
        regarding={
            "apiVersion": "v1",
            "kind": "Pod",
            "name": found.name,
            "namespace": found.namespace,
            "uid": found.uid,
        },
        kind="Warning",
        reason="TooManyDevicesForAClaim",
        note=too_many(found.asked),
        action="Scheduling",
        cause="oversized",
        now=now,
        namespace=found.namespace,
    )


def waited(pod: Mapping[str, Any], *, since: str) -> bool:
    """Whether a pod without a node was made before a time (RFC 3339), and waits for nobody but the scheduler."""
    metadata, spec = pod["metadata"], pod["spec"]
    made = metadata.get("creationTimestamp") or ""
    return made < since and "deletionTimestamp" not in metadata and not spec.get("schedulingGates")


def told(pod: Mapping[str, Any], summary: str, *, now: str) -> Json:
    """The Event of a pod that has waited for a while: what `neuron-sim explain` says of it now."""
    metadata = pod["metadata"]
    return conditions.event(
        regarding={
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        kind="Warning",
        reason="WaitsForNeuronDevices",
        note=summary,
        action="Scheduling",
        cause=summary,
        now=now,
        namespace=metadata["namespace"],
    )


def served_resources(neuron_nodes: Sequence[Mapping[str, Any]], plain_pods: PlainPods | None) -> tuple[str, ...]:
    """The extended resources that only DRA serves; none where a device plugin could take such a pod."""
    roads = {item["spec"].get("resources") for item in neuron_nodes}
    if roads != {"DRA"} or plain_pods is None or not plain_pods.kept:
        return ()
    return (plain_pods.resource, plain_pods.core_resource)
