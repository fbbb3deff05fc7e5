"""What a container gets when the kubelet asks the device plugin: which devices, and under which name. Pure.

The kubelet's ids are a wish. It counts `aws.amazon.com/neuron` and `aws.amazon.com/neuroncore` independently, and knows
nothing of the scheduler extension's choices nor of claims, so what is free is decided here, from the checkpoint. A
container gets what the extension chose for it; else what the kubelet's ids name, if that is free; else the best that
is free. If nothing is, the pod fails with a sentence, where real nodes give a chip twice.

Physical cores are bits of one number here, counted over the node: two devices exclude one another if they share one.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from neuron_device_model.faults import faults_of

from ..allocations.allocation import AllocatedDevice, AllocatedRequest, Allocation
from ..deviceplugin import Device
from ..errors import AgentError
from ..node import SimulatedNode
from ..records.checkpoint import Entry, Origin
from ..records.holdings import WHOLE_CHIP, shares
from .pod_annotations import CHIPS, CORES, IDS, Pod, Waiting, next_waiting, promised, with_init_container
from .preferred import preferred_chips, preferred_cores
from .releases import PREFIX, Owner, pod_uid_of, uid_for

ORIGIN: Origin = "device-plugin"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Resource:
    """An extended resource and the devices that it counts."""

    name: str
    endpoint: str
    prefix: str
    request: str
    """What the checkpoint and the container's folder call it."""
    prefer: Callable[..., tuple[int, ...]]

    def device(self, number: int) -> str:
        """A device's name, which is also its id for the kubelet."""
        return f"{self.prefix}{number}"

    def number(self, device: str) -> int:
        """The other way round."""
        number = device.removeprefix(self.prefix)
        if number == device or not number.isdigit():
            raise AgentError(f"{device!r} is no device of {self.name}: restart the kubelet, which remembers it")
        return int(number)

    def total(self, node: SimulatedNode) -> int:
        """How many a node has."""
        kind = node.instance_type
        return kind.chips if self.name == CHIPS else kind.cores(node.logical_neuron_core)


RESOURCES = (
    Resource(CHIPS, "neuron-devplugin.sock", "neuron-device-", "neuron", preferred_chips),
    Resource(CORES, "neuroncore-devplugin.sock", "neuron-core-", "neuroncore", preferred_cores),
)


class InTheWay(AgentError):
    """Devices are held by somebody. It may be over: find out, and plan again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do for an Allocate."""

    allocation: Allocation
    over: tuple[Entry, ...]
    """Entries whose devices the kubelet has handed out anew: unprepare them first."""
    waiting: Waiting | None


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of the node while the kubelet asks."""

    node: SimulatedNode
    entries: Collection[Entry]
    pods: Collection[Pod] = ()
    """The node's; empty where they do not matter."""
    owners: Mapping[str, Owner] | None = None
    young: Collection[str] = ()
    """Entries made moments ago."""
    settled: bool = False
    """What is over has been removed: what is in the way now stays in the way."""

    def served(self, pod_uid: str, container: str) -> bool:
        """Whether a container of a known pod has got its devices."""
        return any(entry.uid == uid_for(pod_uid, container) for entry in self.entries)


def offered(node: SimulatedNode, resource: Resource) -> list[Device]:
    """The devices of a resource. Unhealthy is what no new pod is to get: a fault of effect None only informs."""
    devices = []
    for number in range(resource.total(node)):
        part = node.part(resource.device(number))
        slot = node.instance_type.devices[part.chips[0]]
        devices.append(
            Device(
                id=resource.device(number),
                healthy=not any(fault.effect != "None" for fault in faults_of(part, node.faults, node.instance_type)),
                numa_nodes=(slot.numa_node,) if slot.numa_node >= 0 else (),
            )
        )
    return devices


def wants_choice(node: SimulatedNode, resource: Resource, count: int) -> bool:
    """Whether there is a choice. All devices are all devices, whatever an annotation says, and AWS's plugin does not
    look for one then.
    """
    return count != resource.total(node)


def plan(resource: Resource, ids: Collection[str], situation: Situation) -> Plan:
    """What the container gets for which the kubelet asks; an AgentError says why it gets nothing."""
    node, count = situation.node, len(ids)
    choice = wants_choice(node, resource, count)
    waiting = next_waiting(situation.pods, resource.name, count, situation.served) if choice else None
    own = [e for e in situation.entries if waiting and pod_uid_of(e.uid) == waiting.uid]
    shared, ended = _handed_out_before(ids, situation, own)
    taken = _mask(node, (e for e in situation.entries if e not in ended and e not in shared))
    numbers = _chosen(resource, waiting, taken, situation) if waiting else _free(resource, ids, taken, situation)
    common = _mask(node, shared)
    allocation = Allocation(
        namespace=waiting.namespace if waiting else UNKNOWN,
        name=waiting.pod if waiting else UNKNOWN,
        uid=uid_for(waiting.uid, waiting.container) if waiting else f"{PREFIX}{uuid.uuid4()}",
        pool=node.name,
        requests=(
            AllocatedRequest(
                name=resource.request,
                devices=tuple(
                    AllocatedDevice(
                        name=resource.device(number),
                        request=resource.request,
                        # An init container has it, too, and has ended when this one starts.
                        admin_access=bool(_bits(node, resource, number) & common),
                    )
                    for number in numbers
                ),
            ),
        ),
        origin=ORIGIN,
        kubelet_ids=tuple(sorted(ids)),
    )
    return Plan(allocation, tuple(ended), waiting)


def best(
    resource: Resource, available: Collection[str], must: Collection[str], count: int, situation: Situation
) -> list[str]:
    """The ids that the kubelet had best hand out, so that what it counts is what the container gets."""
    node = situation.node
    numbers = _numbers(resource, available)
    waiting = next_waiting(situation.pods, resource.name, count, situation.served)
    if waiting and not must and numbers.issuperset(waiting.ids):
        return [resource.device(number) for number in waiting.ids]
    # What the kubelet can hand out, it has taken back from whoever had it.
    free_again = [e for e in situation.entries if not numbers.isdisjoint(_numbers(resource, e.kubelet_ids))]
    taken = _mask(node, (e for e in situation.entries if e not in free_again)) | _promised(situation, waiting)
    free = {number for number in numbers if not _bits(node, resource, number) & taken}
    return [resource.device(number) for number in resource.prefer(node, free, count, must=_numbers(resource, must))]


def allocation_of(entry: Entry) -> Allocation:
    """The allocation with which an entry was prepared."""
    requests: dict[str, list[AllocatedDevice]] = {}
    for held in entry.devices:
        requests.setdefault(held.request, []).append(
            AllocatedDevice(held.device, held.request, admin_access=held.admin_access)
        )
    return Allocation(
        namespace=entry.namespace,
        name=entry.name,
        uid=entry.uid,
        pool=entry.devices[0].pool,
        requests=tuple(AllocatedRequest(name, tuple(devices)) for name, devices in requests.items()),
        origin=entry.origin,
        kubelet_ids=entry.kubelet_ids,
    )


def _handed_out_before(
    ids: Collection[str], situation: Situation, own: Collection[Entry]
) -> tuple[list[Entry], list[Entry]]:
    """The entries whose devices the container shares, and those that are over.

    The kubelet gives away again what it has taken back, and also what an init container of the same pod has.
    """
    before = [
        e for e in situation.entries if e.origin == ORIGIN and e not in own and not set(e.kubelet_ids).isdisjoint(ids)
    ]
    if not before:
        return list(own), []
    if not situation.settled:
        raise InTheWay(f"{', '.join(sorted(ids))} were given to somebody before")
    if with_init_container(situation.pods, (CHIPS, CORES)):
        shared = [entry for entry in before if entry.uid in situation.young]
    else:
        shared = []
    return [*own, *shared], [entry for entry in before if entry not in shared]


def _chosen(resource: Resource, waiting: Waiting, taken: int, situation: Situation) -> tuple[int, ...]:
    """What the scheduler extension chose, if it can be given."""
    total = resource.total(situation.node)
    if unknown := [number for number in waiting.ids if not 0 <= number < total]:
        raise AgentError(
            f"{waiting} has {unknown[0]} in its annotation {IDS}, and node {situation.node.name} has {resource.name} "
            f"0 to {total - 1}: delete the pod, so that it is scheduled again"
        )
    for number in waiting.ids:
        if _bits(situation.node, resource, number) & taken:
            raise InTheWay(
                f"{waiting} was given {resource.device(number)} by its scheduler (annotation {IDS}), which "
                f"{_holder(situation, _bits(situation.node, resource, number))} has: delete the pod, so that it is "
                "scheduled again, and let one scheduler place all pods with Neuron devices of this node"
            )
    return waiting.ids


def _free(resource: Resource, ids: Collection[str], taken: int, situation: Situation) -> tuple[int, ...]:
    """What the kubelet's ids name if it is free, else the best that is."""
    node = situation.node
    taken |= _promised(situation, None)
    wish = sorted(resource.number(id_) for id_ in ids)
    if wish[-1] < resource.total(node) and not any(_bits(node, resource, number) & taken for number in wish):
        return tuple(wish)
    healthy = [resource.number(device.id) for device in offered(node, resource) if device.healthy]
    free = {number for number in healthy if not _bits(node, resource, number) & taken}
    if len(free) < len(ids):
        others = sorted({_holder(situation, bits) for n in healthy if (bits := _bits(node, resource, n)) & taken})
        raise InTheWay(
            f"{len(ids)} {resource.name} are asked for and {len(free)} are free on node {node.name}; others are with "
            f"{', '.join(others) or 'nobody, but broken'}: the kubelet counts {CHIPS} and {CORES} independently, so "
            "use one of the two resources on a node, or let the scheduler extension place the pods (schedulerName: "
            "my-scheduler)"
        )
    return resource.prefer(node, free, len(ids))


def _promised(situation: Situation, but: Waiting | None) -> int:
    node = situation.node
    return sum_bits(
        _bits(node, resource, number)
        for resource in RESOURCES
        for number in promised(situation.pods, resource.name, situation.served, but=but)
        if 0 <= number < resource.total(node)
    )


def _holder(situation: Situation, bits: int) -> str:
    """Who has a device, in words."""
    for entry in situation.entries:
        if _mask(situation.node, [entry]) & bits:
            namespace, name = (situation.owners or {}).get(entry.uid, (entry.namespace, entry.name))
            if entry.origin != ORIGIN:
                return f"claim {namespace}/{name}"
            return "another pod" if name == UNKNOWN else f"pod {namespace}/{name}"
    return "a pod that the scheduler extension has placed"


def _numbers(resource: Resource, ids: Iterable[str]) -> set[int]:
    """The numbers of those ids that are of a resource."""
    return {resource.number(id_) for id_ in ids if id_.startswith(resource.prefix)}


def _bits(node: SimulatedNode, resource: Resource, number: int) -> int:
    return sum(1 << core for core in node.part(resource.device(number)).physical_cores)


def _mask(node: SimulatedNode, entries: Iterable[Entry]) -> int:
    per_chip = node.instance_type.chip.physical_cores
    whole = (1 << per_chip) - 1
    return sum_bits(
        (whole if share.cores == WHOLE_CHIP else share.cores) << chip * per_chip
        for entry in entries
        for chip, share in shares(entry.devices).items()
    )


def sum_bits(masks: Iterable[int]) -> int:
    """All of them together."""
    together = 0
    for mask in masks:
        together |= mask
    return together
