"""Which chips of a node are free for gangs: healthy ones, less what claims and pods have, less what is promised.

Neither watch is in step with the other: a pod can be seen bound before its claim is seen allocated. So a promise to
a pod lasts until an allocated claim is seen that is reserved for it, on nodes where devices come by claims; and
elsewhere as long as the pod.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neuron_device_model import catalog
from neuron_device_model.catalog import InstanceType, UnknownInstanceType
from neuron_device_model.efa import efa_devices, faults_of_card
from neuron_device_model.faults import hits, read
from neuron_device_model.partitions import UnknownDevice, part

from neuron_operator import topology
from neuron_operator.gangs.barrier import Barrier, barrier
from neuron_operator.nodes import NodeFacts
from neuron_operator.placement import Level, NodeState

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a NeuronNode says of its node."""

    instance_type: InstanceType
    logical_neuron_core: int
    healthy: frozenset[int]
    cut_off: bool
    """None of its EFA cards works."""
    domains: Mapping[Level, str]
    position: int | None
    by_claims: bool
    """Devices come by claims; else by device plugins."""
    workload: str
    """Of a NeuronUltraServerWorkload, which has the whole node; else empty."""
    served: bool
    """Whether its agent serves it. An agent that is away for a moment takes nothing away that was promised."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A claim that is allocated devices of our driver, or the barrier, or both."""

    devices: tuple[tuple[str, str], ...]
    """Node and device; not the barrier."""
    pods: frozenset[str]
    """UIDs of the pods that it is reserved for."""
    holders: tuple[str, ...]
    """The same as people know them."""
    barrier: Barrier | None = None


def hardware(neuron_node: Json) -> Hardware | None:
    """The projection of a NeuronNode; None if its type is not known."""
    spec = neuron_node["spec"]
    try:
        found = catalog.instance_type(spec["instanceType"])
    except UnknownInstanceType:
        return None
    lnc = spec["logicalNeuronCore"]
    faults = [read(fault) for fault in spec.get("faults") or () if fault["effect"] != "None"]
    parts = {chip: part(f"neuron-device-{chip}", found, logical_neuron_core=lnc) for chip in range(found.chips)}
    seat = topology.seat(spec)
    cards = efa_devices(found)
    return Hardware(
        instance_type=found,
        logical_neuron_core=lnc,
        healthy=frozenset(c for c, chip in parts.items() if not any(hits(fault, chip, found) for fault in faults)),
        cut_off=bool(cards) and all(faults_of_card(card, faults) for card in cards),
        domains=topology.domains(neuron_node),
        position=None if seat is None else seat.node,
        by_claims=spec.get("resources") != "DevicePlugin",
        workload=spec.get("workloadID") or "",
        served=_served(neuron_node),
    )


def holding(claim: Json, *, driver_name: str) -> Holding | None:
    """The projection of a ResourceClaim; None if it holds nothing of ours."""
    status = claim.get("status") or {}
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    devices = tuple(
        (str(result["pool"]), str(result["device"]))
        for result in results
        if result["driver"] == driver_name and not result.get("adminAccess")
    )
    stop = barrier(claim)
    if not devices and stop is None:
        return None
    consumers = [each for each in status.get("reservedFor") or () if each.get("resource") == "pods"]
    namespace = claim["metadata"]["namespace"]
    return Holding(
        devices,
        frozenset(str(each["uid"]) for each in consumers),
        tuple(f"pod {namespace}/{each['name']}" for each in consumers),
        stop,
    )


def shut(facts: NodeFacts | None, hardware: Hardware | None, *, owner: str = "") -> str | None:
    """Why no pod of a gang can go on a node, promised or not, as the end of "node X is …"; `owner`: who else has it."""
    if facts is None:
        return "gone"
    if hardware is None:
        return "no Neuron node"
    if facts.unschedulable:
        return "cordoned"
    if owner:
        return f"allocated to {owner}"
    if hardware.workload:
        return f"allocated to the NeuronUltraServerWorkload with the id {hardware.workload}"
    return None if facts.ready else "not ready"


def left(hardware: Hardware, *, node: str, held: Iterable[Holding], plain: int = 0) -> frozenset[int]:
    """Chips that are healthy and that nobody has."""
    gone = {
        chip
        for holding in held
        for pool, device in holding.devices
        if pool == node
        for chip in _chips(hardware, device)
    }
    free = hardware.healthy - gone
    # which ones plain pods of the device plugin have, only the plugin knows
    return frozenset(sorted(free)[plain:])


def state(
    facts: NodeFacts,
    hardware: Hardware,
    *,
    held: Collection[Holding],
    plain: int,
    promised: int,
    holders: Iterable[str] = (),
    owner: str = "",
) -> NodeState:
    """A node as placement sees it; `promised` chips are not free, whichever they will be."""
    free = sorted(left(hardware, node=facts.name, held=held, plain=plain))
    # the scheduler gives chips away from the highest number downwards
    free = free[: max(0, len(free) - promised)]
    used_by = {holder for holding in held for holder in holding.holders} | set(holders)
    return NodeState(
        name=facts.name,
        chips=hardware.instance_type.chips,
        free=tuple(free),
        instance_type=hardware.instance_type.name,
        domains=hardware.domains,
        position=hardware.position,
        closed=shut(facts, hardware, owner=owner)
        or (None if hardware.served else "not served by its neuron-sim agent"),
        cut_off=hardware.cut_off,
        used_by=tuple(sorted(used_by)),
    )


def _chips(hardware: Hardware, device: str) -> Iterable[int]:
    try:
        return part(device, hardware.instance_type, logical_neuron_core=hardware.logical_neuron_core).chips
    except UnknownDevice:  # cut anew since: nobody knows any more which one it was
        return hardware.healthy


def _served(neuron_node: Json) -> bool:
    conditions = (neuron_node.get("status") or {}).get("conditions") or ()
    return not any(found["type"] == "Ready" and found["status"] == "False" for found in conditions)
