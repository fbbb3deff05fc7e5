"""What a node offers to claims, and who holds it: from ResourceSlices and from the claims that are allocated.

Devices may overlap (a chip and its cores), and Kubernetes keeps them apart by counters that each draws from. So
does this: a device is out of reach where its counters are used up, and those who hold them are named.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from neuron_operator import names
from neuron_operator.explaining.cel_reading import Scalar
from neuron_operator.node_affinity import selects

Json = Mapping[str, Any]

_UNITS = {
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    "m": Decimal("0.001"),
}


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a device."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Device:
    """A device of a node."""

    name: str
    driver: str
    pool: str
    attributes: Json
    """As the slice has them."""
    takes: tuple[tuple[tuple[str, str], Decimal], ...] = ()
    """What it draws from which counter of which counter set."""
    taints: tuple[Taint, ...] = ()
    shared: bool = False
    """Whether it can be given to several claims."""

    def attribute(self, name: str) -> Scalar | None:
        """The value of an attribute, by its full name; a name without domain in the slice is the driver's."""
        content = self.attributes.get(name)
        if content is None:
            domain, _, short = name.partition("/")
            content = self.attributes.get(short) if domain == self.driver else None
        return next(iter(content.values()), None) if content else None


@dataclass(frozen=True, slots=True)
class Holder:
    """A claim that has devices of a node."""

    claim: str
    """Namespace and name."""
    pods: tuple[str, ...]
    """Namespaces and names of the pods that it is reserved for."""
    devices: frozenset[tuple[str, str, str]]
    """Driver, pool and name of each."""

    def __str__(self) -> str:
        if not self.pods:
            return f"claim {self.claim}"
        more = f" and {len(self.pods) - 1} more" if self.pods[1:] else ""
        return f"pod {self.pods[0]}{more}"


@dataclass(frozen=True, slots=True)
class Supply:
    """The devices of one node, in the order in which the scheduler sees them, and who holds some of them."""

    node: str
    devices: tuple[Device, ...] = ()
    counters: Mapping[tuple[str, str, str], Decimal] | None = None
    """By pool, counter set and counter."""
    holders: tuple[Holder, ...] = ()


def supplies(slices: Iterable[Json], claims: Sequence[Json], *, nodes: Sequence[Json] = ()) -> dict[str, Supply]:
    """What each node offers; only the slices of the newest generation of a pool count.

    `nodes` are Node objects, for slices that several nodes can reach: without them these are left out.
    """
    labels = {node["metadata"]["name"]: node["metadata"].get("labels") or {} for node in nodes}
    newest: dict[tuple[str, str], int] = {}
    pieces: list[_Piece] = []
    for item in slices:
        for node in _reached(item["spec"], labels):
            piece = _piece(item, node)
            newest[piece.pool] = max(piece.generation, newest.get(piece.pool, 0))
            pieces.append(piece)
    devices: dict[str, list[Device]] = {}
    counters: dict[str, dict[tuple[str, str, str], Decimal]] = {}
    for piece in sorted(pieces, key=lambda piece: piece.name):
        if piece.generation == newest[piece.pool]:
            devices.setdefault(piece.node, []).extend(piece.devices)
            counters.setdefault(piece.node, {}).update(piece.counters)
    held = holders_by_pool(claims)
    return {
        node: Supply(
            node,
            tuple(found),
            counters.get(node),
            tuple({id(h): h for pool in {device.pool for device in found} for h in held.get(pool, ())}.values()),
        )
        for node, found in devices.items()
    }


def holders_by_pool(claims: Sequence[Json]) -> dict[str, list[Holder]]:
    """The claims that hold devices, under each pool that they have some of."""
    found: dict[str, list[Holder]] = {}
    for claim in claims:
        holder = _holder(claim)
        if holder is not None:
            for pool in sorted({pool for _, pool, _ in holder.devices}):
                found.setdefault(pool, []).append(holder)
    return found


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is needed of a slice."""

    name: str
    node: str
    pool: tuple[str, str]
    """Driver and name."""
    generation: int
    devices: tuple[Device, ...]
    counters: Mapping[tuple[str, str, str], Decimal]


def _reached(spec: Json, labels: Mapping[str, Mapping[str, str]]) -> Iterable[str]:
    """The nodes that can reach a slice's devices."""
    if spec.get("nodeName"):
        return (spec["nodeName"],)
    if selector := spec.get("nodeSelector"):
        return (name for name, found in labels.items() if selects(selector, name=name, labels=found))
    return labels if spec.get("allNodes") else ()


def _piece(item: Json, node: str) -> _Piece:
    spec = item["spec"]
    pool = spec["pool"]
    return _Piece(
        name=str(item["metadata"].get("name", "")),
        node=node,
        pool=(spec["driver"], pool["name"]),
        generation=pool.get("generation", 0),
        devices=tuple(_device(found, spec) for found in spec.get("devices") or ()),
        counters={
            (pool["name"], shared["name"], name): quantity(counter["value"])
            for shared in spec.get("sharedCounters") or ()
            for name, counter in (shared.get("counters") or {}).items()
        },
    )


def _holder(claim: Json) -> Holder | None:
    allocation = (claim.get("status") or {}).get("allocation")
    if not allocation:
        return None
    # admin access takes nothing away from others
    held = frozenset(
        (result["driver"], result["pool"], result["device"])
        for result in (allocation.get("devices") or {}).get("results") or ()
        if not result.get("adminAccess")
    )
    if not held:
        return None
    metadata = claim["metadata"]
    consumers = (claim.get("status") or {}).get("reservedFor") or ()
    return Holder(
        f"{metadata['namespace']}/{metadata['name']}",
        tuple(f"{metadata['namespace']}/{each['name']}" for each in consumers if each.get("resource") == "pods"),
        held,
    )


def _device(item: Json, spec: Json) -> Device:
    return Device(
        name=item["name"],
        driver=spec["driver"],
        pool=spec["pool"]["name"],
        attributes=item.get("attributes") or {},
        takes=tuple(
            ((drawn["counterSet"], name), quantity(counter["value"]))
            for drawn in item.get("consumesCounters") or ()
            for name, counter in (drawn.get("counters") or {}).items()
        ),
        taints=tuple(
            Taint(taint["key"], taint.get("value", ""), taint["effect"]) for taint in item.get("taints") or ()
        ),
        shared=bool(item.get("allowMultipleAllocations")),
    )


def quantity(text: object) -> Decimal:
    """A Kubernetes quantity; what is none counts as nothing."""
    written = str(text)
    for unit in (written[-2:], written[-1:]):
        if unit in _UNITS:
            return quantity(written.removesuffix(unit)) * _UNITS[unit]
    try:
        return Decimal(written)
    except InvalidOperation:
        return Decimal(0)


def noun(device: Device, count: int = 2) -> str:
    """What people call such a device."""
    kind = device.attribute(f"{device.driver}/resourceType")
    if kind == "neuron_core":
        physical = device.attribute(f"{names.GROUP}/partition") == "physical"
        word = "physical NeuronCore" if physical else "NeuronCore"
    else:
        word = {"neuron_device": "chip", "neuron_node": "whole node"}.get(str(kind), f"device of {device.driver}")
    if device.driver == names.ULTRASERVER_DRIVER_NAME:
        word = "gang barrier" if device.name == names.BARRIER_DEVICE else "UltraServer"
    if word.startswith("device of"):
        return word if count == 1 else f"devices of {device.driver}"
    return word if count == 1 else f"{word}s"
