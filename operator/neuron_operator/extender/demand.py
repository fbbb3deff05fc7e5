"""What a pod asks for and what it says that it was given: the little of a Pod object that decides anything.

AWS's annotation has one list of ids for a pod, so a pod is given one set for the sum of its containers, and not a
set for each. The sum is Kubernetes' own: containers run together with the sidecars, init containers before them, one
at a time, each with the sidecars that were started by then.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neuron_operator.extender import names

Json = Mapping[str, Any]

_MORE_THAN_ANY_NODE_HAS = 1_000_000


@dataclass(frozen=True, slots=True)
class Demand:
    """Chips and logical cores that a pod needs at the same time."""

    chips: int
    cores: int

    @property
    def resource(self) -> str:
        """The resource, for pods that ask for one of the two."""
        return names.CHIPS if self.chips else names.CORES

    @property
    def count(self) -> int:
        """How many of it."""
        return self.chips or self.cores

    def __bool__(self) -> bool:
        return bool(self.chips or self.cores)


@dataclass(frozen=True, slots=True)
class Holding:
    """A pod that is bound to a node and has devices of it."""

    uid: str
    pod: str
    """Namespace and name."""
    node: str
    demand: Demand
    ids: tuple[int, ...] | None
    """None: the pod does not say, because another scheduler bound it."""
    order: tuple[str, str]
    """Pods that the kubelet saw earlier come first."""


def demand(pod: Json) -> Demand:
    """What a pod asks for."""
    spec = pod.get("spec") or {}
    return Demand(chips=_needed(spec, names.CHIPS), cores=_needed(spec, names.CORES))


def holding(pod: Json) -> Holding | None:
    """What a pod holds; None if it is not bound, is over, or has no Neuron devices."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    node = (pod.get("spec") or {}).get("nodeName")
    wanted = demand(pod)
    if not node or not wanted or status.get("phase") in ("Succeeded", "Failed"):
        return None
    # a pod that no kubelet has seen yet sorts last
    seen = status.get("startTime") or "~"
    return Holding(
        uid=metadata["uid"],
        pod=f"{metadata['namespace']}/{metadata['name']}",
        node=node,
        demand=wanted,
        ids=_ids(metadata.get("annotations") or {}),
        order=(seen, metadata.get("creationTimestamp") or ""),
    )


def _needed(spec: Json, resource: str) -> int:
    sidecars = peak = 0
    for container in spec.get("initContainers") or ():
        asked = _asked(container, resource)
        if container.get("restartPolicy") == "Always":
            sidecars += asked
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + asked)
    return max(peak, sidecars + _sum(spec.get("containers") or (), resource))


def _sum(containers: Iterable[Json], resource: str) -> int:
    return sum(_asked(container, resource) for container in containers)


def _asked(container: Json, resource: str) -> int:
    quantity = ((container.get("resources") or {}).get("requests") or {}).get(resource, 0)
    try:
        return int(quantity)
    except ValueError:
        # the API server keeps whole numbers as such up to 999, then "1k"
        return _MORE_THAN_ANY_NODE_HAS


def _ids(annotations: Mapping[str, str]) -> tuple[int, ...] | None:
    try:
        return tuple(int(part) for part in annotations[names.IDS].split(","))
    except (KeyError, ValueError):
        return None
