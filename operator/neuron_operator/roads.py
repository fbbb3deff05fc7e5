"""The road by which pods get devices: Dynamic Resource Allocation, or a device plugin. A node has one, never both.

The scheduler itself keeps the two apart: where a node's allocatable has a resource, it counts there and leaves
claims aside. What decides for `Auto` is whether a plain pod, with nothing but a limit, could be served by DRA. That
is not read off a version: the chart writes an extended resource's name into our DeviceClass, and an API server
whose feature gate is off drops it without a word.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from neuron_operator import names
from neuron_operator.resources import Road


@dataclass(frozen=True, slots=True)
class PlainPods:
    """What became of the extended resource that our DeviceClass is to serve."""

    resource: str
    """As the chart wrote it; empty: plain pods are not to be served."""
    kept: bool
    """Whether the API server kept it."""

    @property
    def core_resource(self) -> str:
        """The extended resource of the class for cores, which the chart names after the other."""
        return f"{self.resource}core" if self.resource else ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The road of a pool, and why it is that one."""

    road: Road
    reason: str
    why: str
    known: bool = True


def plain_pods(device_class: Mapping[str, Any]) -> PlainPods:
    """Read our DeviceClass."""
    kept = device_class["spec"].get("extendedResourceName") or ""
    annotations = device_class["metadata"].get("annotations") or {}
    return PlainPods(annotations.get(names.ANNOTATION_EXTENDED_RESOURCE, kept), bool(kept))


def choose(wished: str, *, plain_pods: PlainPods | None, held: Collection[str]) -> Choice:
    """The road of a pool; `held` are the roads that its NeuronNodes have now."""
    if wished == "DRA":
        return Choice("DRA", "AsWished", "the pool says so")
    if wished == "DevicePlugin":
        return Choice("DevicePlugin", "AsWished", "the pool says so")
    if plain_pods is None:
        why = f"it is not known whether the API server keeps extendedResourceName (DeviceClass {names.DEVICE_CLASS})"
        return keep(held, "NotKnown", why)
    if plain_pods.kept:
        why = f"the API server keeps extendedResourceName, so plain pods get {plain_pods.resource} from DRA"
        return Choice("DRA", "ExtendedResourceServed", why)
    if not plain_pods.resource:
        return Choice("DRA", "PlainPodsNotWished", "the chart's extendedResourceName is empty")
    why = (
        "the API server drops extendedResourceName (it came with Kubernetes 1.36), so DRA could not serve plain pods;"
        " for ResourceClaims set resources: DRA"
    )
    return Choice("DevicePlugin", "ExtendedResourceNameDropped", why)


def keep(held: Collection[str], reason: str, why: str) -> Choice:
    """The road that a pool's NeuronNodes have, where it must not be chosen anew."""
    road: Road = "DevicePlugin" if set(held) == {"DevicePlugin"} else "DRA"
    return Choice(road, reason, f"{why}, so nothing is changed", known=False)
