"""What AWS's scheduler extension tells the device plugin about pods, and how pods ask for Neuron devices. Pure.

The extension writes the devices that it chose on the pod and binds it; then the kubelet calls the plugin, without
saying for which pod. So the plugin looks for the pod of its node that waits for so many devices, the one that was bound
first. There is one list of ids for a pod. Its containers get parts of it in the order in which the kubelet asks:
sidecars and ordinary containers one after the other, an init container what others get after it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

CHIPS = "aws.amazon.com/neuron"
CORES = "aws.amazon.com/neuroncore"

IDS = "AWS_NEURON_IDS"
ALLOC_TIME = "NEURON_ALLOC_TIME"
ALLOCATED = "NEURON_ALLOCATED"
RESOURCE_TYPE = "NEURON_RESOURCE_TYPE"

Pod: TypeAlias = Mapping[str, Any]
Served: TypeAlias = Callable[[str, str], bool]
"""A pod's uid and the name of a container → whether the container has got its devices."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A container that asks for devices of a resource."""

    container: str
    count: int
    role: Literal["init", "sidecar", "main"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A container whose devices the scheduler extension has chosen."""

    namespace: str
    pod: str
    uid: str
    container: str
    ids: tuple[int, ...]
    last: bool
    """No other container of the pod waits after it."""

    def __str__(self) -> str:
        return f"pod {self.namespace}/{self.pod}"


def wishes(pod: Pod, resource: str) -> list[Wish]:
    """The containers that ask for a resource, in the order in which the kubelet does."""
    spec = pod.get("spec") or {}
    found = []
    for container in spec.get("initContainers") or ():
        role: Literal["init", "sidecar"] = "sidecar" if container.get("restartPolicy") == "Always" else "init"
        found.append(Wish(container["name"], _asked(container, resource), role))
    found += [Wish(c["name"], _asked(c, resource), "main") for c in spec.get("containers") or ()]
    return [wish for wish in found if wish.count]


def next_waiting(pods: Iterable[Pod], resource: str, count: int, served: Served) -> Waiting | None:
    """For which container the kubelet asks when it asks for so many devices: of the pod that was bound first."""
    waiting = [found for pod in pods if (found := _next(pod, resource, served)) and len(found[1].ids) == count]
    return min(waiting, key=lambda found: found[0], default=(0, None))[1]


def promised(pods: Iterable[Pod], resource: str, served: Served, *, but: Waiting | None) -> set[int]:
    """The ids that were chosen for containers that have not got them yet, another pod's than `but`."""
    found: set[int] = set()
    for pod in pods:
        if _waits(pod) and (but is None or pod["metadata"]["uid"] != but.uid):
            for container, ids in _parts(pod, resource).items():
                if not served(pod["metadata"]["uid"], container):
                    found.update(ids)
    return found


def _next(pod: Pod, resource: str, served: Served) -> tuple[int, Waiting] | None:
    metadata = pod["metadata"]
    if not _waits(pod):
        return None
    rest = [(name, ids) for name, ids in _parts(pod, resource).items() if not served(metadata["uid"], name)]
    if not rest:
        return None
    container, ids = rest[0]
    bound = _annotations(pod).get(ALLOC_TIME, "")
    order = int(bound) if bound.isascii() and bound.isdigit() else 1 << 64
    return order, Waiting(metadata["namespace"], metadata["name"], metadata["uid"], container, ids, len(rest) == 1)


def _waits(pod: Pod) -> bool:
    return (
        _annotations(pod).get(ALLOCATED) == "false"
        and "deletionTimestamp" not in pod["metadata"]
        and (pod.get("status") or {}).get("phase", "Pending") == "Pending"
    )


def _parts(pod: Pod, resource: str) -> dict[str, tuple[int, ...]]:
    """Which container gets which of the pod's ids; none where the ids are of another resource, or too few."""
    kind = _annotations(pod).get(RESOURCE_TYPE)
    other = CORES if resource == CHIPS else CHIPS
    if kind != resource if kind else bool(wishes(pod, other)):
        return {}
    try:
        ids = tuple(int(part) for part in _annotations(pod)[IDS].split(","))
    except (KeyError, ValueError):
        return {}
    parts = {}
    begin = 0
    for wish in wishes(pod, resource):
        parts[wish.container] = ids[begin : begin + wish.count]
        if len(parts[wish.container]) < wish.count:
            return {}
        if wish.role != "init":
            begin += wish.count
    return parts


def _annotations(pod: Pod) -> Mapping[str, str]:
    return pod["metadata"].get("annotations") or {}


def _asked(container: Mapping[str, Any], resource: str) -> int:
    """Extended resources cannot be overcommitted: limits and requests are equal."""
    resources = container.get("resources") or {}
    quantity = str((resources.get("limits") or resources.get("requests") or {}).get(resource, 0))
    # Others than whole numbers ("1k") are more than any node has.
    return int(quantity) if quantity.isdigit() else 0


def with_init_container(pods: Iterable[Pod], resources: Collection[str]) -> bool:
    """Whether some pod has an init container that asks for devices: the kubelet gives these to its other containers."""
    return any(wish.role == "init" for pod in pods for resource in resources for wish in wishes(pod, resource))
