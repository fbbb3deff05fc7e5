"""The places of all nodes of a pool: seats first, then the network nodes above them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_device_model import identity
from neuron_device_model.catalog import InstanceType, ultraserver_type
from neuron_device_model.ultraserver import Seat

from neuron_operator.nodes import NodeFacts
from neuron_operator.topology import badges
from neuron_operator.topology.layers import Path, Shape, Unit, place_all
from neuron_operator.topology.members import seat
from neuron_operator.topology.seating import Applicant, Badge, natural, seat_all


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is."""

    network_nodes: Path
    seat: Seat | None = None

    @property
    def capacity_block(self) -> str | None:
        """The capacity block that the node is in; members of UltraServers only."""
        return identity.capacity_block(self.seat.id) if self.seat else None


def places(
    nodes: Sequence[NodeFacts],
    *,
    instance_type: InstanceType,
    shape: Shape,
    specs: Mapping[str, Mapping[str, Any]],
) -> dict[str, Place]:
    """The place of every node, by name; `specs` are those of the NeuronNodes that the nodes have in this pool."""
    kind = ultraserver_type(instance_type.ultraserver) if instance_type.ultraserver else None
    ordered = sorted(nodes, key=lambda node: natural(node.name))
    size = kind.servers if kind else None
    held = {node.name: _held(node, specs.get(node.name), pool=shape.pool, size=size) for node in nodes}
    labelled = {node.name: badges.network_labels(node) for node in nodes}

    seats: dict[str, Seat] = {}
    if kind is not None:
        applicants = []
        for node in ordered:
            badge = badges.badge(node)
            if badge is None or isinstance(badge, Badge):
                applicants.append(Applicant(node.name, held[node.name].seat, badge, site=labelled[node.name][-1]))
        seats = seat_all(
            applicants,
            size=kind.servers,
            number=lambda number: identity.ultraserver(f"{shape.uid}/{kind.name}/{number}"),
        )

    units: dict[str, list[str]] = {}
    for node in ordered:
        units.setdefault(seats[node.name].id if node.name in seats else node.name, []).append(node.name)
    paths = place_all([_unit(name, members, seats, held, labelled, shape) for name, members in units.items()], shape)
    return {
        member: Place(
            tuple(told or path for told, path in zip(labelled[member], paths[name], strict=True)), seats.get(member)
        )
        for name, members in units.items()
        for member in members
    }


def _held(node: NodeFacts, spec: Mapping[str, Any] | None, *, pool: str, size: int | None) -> badges.Memory:
    if spec is None:
        return badges.memory(node, pool=pool, size=size)
    path: Path = tuple(spec.get("networkNodes") or ())
    return badges.Memory(seat=seat(spec), path=path if len(path) == len(badges.network_labels(node)) else None)


def _unit(
    name: str,
    members: Sequence[str],
    seats: Mapping[str, Seat],
    held: Mapping[str, badges.Memory],
    labelled: Mapping[str, tuple[str | None, ...]],
    shape: Shape,
) -> Unit:
    """What is placed as one; where others have said its place, that is it."""
    if members[0] in seats:
        members = sorted(members, key=lambda member: seats[member].node)
    told = next((found for member in members if (found := labelled[member])[-1]), None)
    path: Path | None
    if told is not None:
        path = (told[0] or shape.top, told[1] or shape.middle, told[2] or "")
    else:
        path = next((kept for member in members if (kept := held[member].path)), None)
    return Unit(name, weight=seats[members[0]].size if members[0] in seats else 1, held=path)
