"""Pods that no DRA node can ever take, because a claim holds 32 devices at most.

For a plain pod the scheduler makes one claim of all the extended resources that DRA serves. `neuroncore: 64`, one
trn2.48xlarge, cannot be one, and the scheduler's words for it (`cannot allocate all claims`) do not say why. So each
such pod gets an Event with the ways out (``notices`` sends it).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_operator import conditions, names
from neuron_operator.roads import PlainPods

Json = dict[str, Any]

UNSCHEDULED = "status.phase=Pending,spec.nodeName="
"""Field selector of the pods that wait for a node."""


@dataclass(frozen=True, slots=True)
class Oversized:
    """A pod that asks for more devices than a claim can hold."""

    namespace: str
    name: str
    uid: str
    asked: Mapping[str, int]


def oversized(pod: Mapping[str, Any], *, resources: Sequence[str]) -> Oversized | None:
    """Judge a pod that waits for a node; `resources` are those that DRA serves."""
    spec, metadata = pod["spec"], pod["metadata"]
    running = list(spec.get("containers") or ())
    first = spec.get("initContainers") or ()
    # a sidecar has its devices beside those of the others, what an init container has is used again
    running += [container for container in first if container.get("restartPolicy") == "Always"]
    asked = {resource: sum(_amount(container, resource) for container in running) for resource in resources}
    for container in first:
        asked = {resource: max(amount, _amount(container, resource)) for resource, amount in asked.items()}
    asked = {resource: amount for resource, amount in asked.items() if amount}
    if sum(asked.values()) <= names.DEVICES_PER_CLAIM:
        return None
    return Oversized(metadata["namespace"], metadata["name"], metadata["uid"], asked)


def _amount(container: Mapping[str, Any], resource: str) -> int:
    resources = container.get("resources") or {}
    for kind in ("requests", "limits"):
        amount = str((resources.get(kind) or {}).get(resource, ""))
        if amount.isdecimal():
            return int(amount)
    return 0


def event(found: Oversized, *, now: str) -> Json:
    """The Event of such a pod: what it asks for, why that cannot be, and what can."""
    asked = " and ".join(f"{amount} {resource}" for resource, amount in found.asked.items())
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
        note=(
            f"The pod asks for {asked}, and DRA serves that by one claim, which holds {names.DEVICES_PER_CLAIM} devices"
            f" at most: ask for whole chips instead, as {names.EXTENDED_RESOURCE} or in a ResourceClaim of the class"
            f" {names.DEVICE_CLASS}, or set resources: DevicePlugin in the NeuronNodePool"
        ),
        action="Scheduling",
        cause="oversized",
        now=now,
        namespace=found.namespace,
    )


def served_resources(neuron_nodes: Sequence[Mapping[str, Any]], plain_pods: PlainPods | None) -> tuple[str, ...]:
    """The extended resources that only DRA serves; none where a device plugin could take such a pod."""
    roads = {item["spec"].get("resources") for item in neuron_nodes}
    if roads != {"DRA"} or plain_pods is None or not plain_pods.kept:
        return ()
    return (plain_pods.resource, plain_pods.core_resource)
