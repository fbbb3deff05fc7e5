"""UltraServers as a whole: who is in them, and what keeps them from being complete.

Read from the NeuronNodes, which is where everybody else finds the topology, too. An UltraServer exists for as long as
one of its members does.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from neuron_device_model.faults import read, whole_node
from neuron_device_model.ultraserver import Seat

from neuron_operator.placement.model import Level

Json = dict[str, Any]
Lack = Literal["missing", "not ready", "broken"]


@dataclass(frozen=True, slots=True)
class UltraServer:
    """Nodes that are joined by NeuronLink."""

    id: str
    pool: str
    instance_type: str
    capacity_block: str
    size: int
    """Servers that it has when it is complete."""
    members: Mapping[int, str]
    """Nodes by their number in it."""
    not_ready: frozenset[str] = frozenset()
    """Members whose kubelet or whose agent is not ready."""
    broken: frozenset[str] = frozenset()
    """Members with a fault of the whole node."""

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers of the servers that are not there."""
        return tuple(number for number in range(self.size) if number not in self.members)

    @property
    def state(self) -> Literal["Ready", "Degraded"]:
        """Ready: every server is there and works."""
        return "Degraded" if self.missing or self.not_ready or self.broken else "Ready"

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is wrong with which server, in the order of their numbers."""
        found = []
        for number in range(self.size):
            name = self.members.get(number)
            if name is None:
                found.append(f"server {number} is missing")
            elif name in self.broken:
                found.append(f"server {number} ({name}) is broken")
            elif name in self.not_ready:
                found.append(f"server {number} ({name}) is not ready")
        return tuple(found)


def seat(spec: Mapping[str, Any]) -> Seat | None:
    """The seat that a NeuronNode's spec names."""
    found = spec.get("ultraServer")
    return Seat(found["id"], found["size"], found["node"]) if found else None


def domains(neuron_node: Mapping[str, Any]) -> dict[Level, str]:
    """The ids of a NeuronNode's domains, at every level that it has."""
    spec = neuron_node["spec"]
    found: dict[Level, str] = {"node": neuron_node["metadata"]["name"]}
    if (sits := seat(spec)) is not None:
        if 2 in sits.sets:
            found["ultraserver-2"] = sits.set_id(2)
        found["ultraserver"] = sits.id
    layers: tuple[Level, ...] = ("network-1", "network-2", "network-3")
    return found | dict(zip(layers, spec.get("networkNodes") or (), strict=False))


def ultraservers(neuron_nodes: Iterable[Json], *, not_ready: Collection[str] = ()) -> list[UltraServer]:
    """All UltraServers, by id. `not_ready` names nodes whose kubelet does not answer."""
    members: dict[str, dict[int, Json]] = {}
    for item in neuron_nodes:
        if (sits := seat(item["spec"])) is not None:
            members.setdefault(sits.id, {})[sits.node] = item
    return [_ultraserver(found, not_ready) for _, found in sorted(members.items())]


def is_ready(neuron_node: Mapping[str, Any]) -> bool:
    """Whether the node's agent says that it serves."""
    conditions = (neuron_node.get("status") or {}).get("conditions") or ()
    for condition in conditions:  # for each node of a fleet, three times a plan: a generator would cost more
        if condition["type"] == "Ready":
            return bool(condition["status"] == "True")
    return False


def is_broken(neuron_node: Mapping[str, Any]) -> bool:
    """Whether a fault has hit the whole node."""
    return any(whole_node(read(fault)) for fault in neuron_node["spec"].get("faults") or ())


def _ultraserver(members: Mapping[int, Json], not_ready: Collection[str]) -> UltraServer:
    by_number = {number: item["metadata"]["name"] for number, item in sorted(members.items())}
    spec = next(iter(members.values()))["spec"]
    return UltraServer(
        id=spec["ultraServer"]["id"],
        pool=spec["pool"],
        instance_type=spec["instanceType"],
        capacity_block=spec.get("capacityBlockID") or "",
        size=spec["ultraServer"]["size"],
        members=by_number,
        not_ready=frozenset(
            by_number[number]
            for number, item in members.items()
            if by_number[number] in not_ready or not is_ready(item)
        ),
        broken=frozenset(by_number[number] for number, item in members.items() if is_broken(item)),
    )
