"""The links between cores: which ones a message from one core to another uses, and what each is published to carry.

A domain is what NeuronLink joins: an instance, or the instances of an UltraServer that work together. Inside a domain
chips are numbered as the topology numbers them, server by server; a route is a sequence of directed links. Between
domains a message leaves by the network card beside its chip and comes in by the one beside the other chip.

Links are values, and two jobs on one node name the same links alike: that is how one can tell that they share them.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

from neuron_device_model.catalog import InstanceType, UltraServerType, instance_type, ultraserver_type
from neuron_device_model.cores import visible_cores
from neuron_device_model.topology import Topology

CORE = "core"
NEURONLINK = "neuronlink"
ULTRASERVER = "ultraserver"
EFA = "efa"
LINK_KINDS = (CORE, NEURONLINK, ULTRASERVER, EFA)

_LINKS_PER_CHIP = {"chain": 2, "ring": 2, "torus2d": 4, "torus3d": 4}
"""Of one chip to the others of its instance. On the 3D torus two more go to the other servers."""


class Core(NamedTuple):
    """A visible NeuronCore: `node` is a position in the fabric, `chip` and `core` count from 0."""

    node: int
    chip: int
    core: int


class Place(NamedTuple):
    """A chip: its number in its domain."""

    domain: str
    position: int


class Link(NamedTuple):
    """One direction of one connection."""

    kind: str
    domain: str
    source: str
    target: str
    nominal: float
    """Published bytes a second in this direction; of a core, the physical cores that move its data."""


@dataclass(frozen=True, slots=True)
class Node:
    """An instance: where it stands among others."""

    name: str
    ultraserver: str | None = None
    """The set of servers that works together with this one; None: NeuronLink ends at the instance."""
    seat: int = 0
    """Its number in that UltraServer."""
    network: tuple[str, ...] = ()
    """Its network nodes, the spine first. Two instances are as far apart as layers differ."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """Instances of one type, cut into cores alike."""

    instance_type: str
    logical_neuron_core: int
    nodes: tuple[Node, ...] = (Node("node"),)

    @property
    def kind(self) -> InstanceType:
        """The catalogue's row."""
        return instance_type(self.instance_type)

    def place(self, core: Core) -> Place:
        """The chip of a core."""
        node = self.nodes[core.node]
        if node.ultraserver is None:
            return Place(node.name, core.chip)
        return Place(node.ultraserver, node.seat * self.kind.chips + core.chip)

    def in_ultraserver(self, core: Core) -> bool:
        """Whether NeuronLink goes on beyond the core's instance."""
        return self.nodes[core.node].ultraserver is not None

    def route(self, source: Core, target: Core) -> tuple[Link, ...]:
        """The links from the one chip to the other; none inside a chip."""
        here, there = self.place(source), self.place(target)
        if here.domain == there.domain:
            joined = self.in_ultraserver(source)
            return chip_route(self.instance_type, joined, here.domain, here.position, there.position)
        return (self.card(source, "out"), self.card(target, "in"))

    def routes(self, source: Core, target: Core) -> tuple[tuple[Link, ...], ...]:
        """The ways that many messages between two chips take in equal parts."""
        here, there = self.place(source), self.place(target)
        if here.domain != there.domain:
            return (self.route(source, target),)
        joined = self.in_ultraserver(source)
        return chip_routes(self.instance_type, joined, here.domain, here.position, there.position)

    def card(self, core: Core, direction: str) -> Link:
        """One direction of the network card that is next to the core's chip."""
        return _card(self.instance_type, self.nodes[core.node].name, core.chip, direction)

    def layers_apart(self, a: Core, b: Core) -> int:
        """How many layers of the network lie between two instances beyond the one they share; 0 under one leaf."""
        here, there = self.nodes[a.node].network, self.nodes[b.node].network
        shared = next((depth for depth, (x, y) in enumerate(zip(here, there, strict=False)) if x != y), len(here))
        return max(len(here) - shared, 0)

    def core_link(self, core: Core) -> Link:
        """The DMA engines that move a core's data."""
        place = self.place(core)
        return Link(CORE, place.domain, f"chip {place.position}", f"core {core.core}", self.logical_neuron_core)

    def cores(self, node: int = 0) -> tuple[Core, ...]:
        """All cores of a node, ascending."""
        per_chip = visible_cores(self.kind.chip, self.logical_neuron_core)
        return tuple(Core(node, chip, core) for chip in range(self.kind.chips) for core in range(per_chip))


def single_node(type_name: str, *, logical_neuron_core: int | None = None) -> Fabric:
    """One instance, at its chip's default LNC unless told otherwise."""
    lnc = logical_neuron_core or instance_type(type_name).chip.default_logical_neuron_core
    visible_cores(instance_type(type_name).chip, lnc)
    return Fabric(type_name, lnc)


@lru_cache(maxsize=1 << 16)
def chip_route(type_name: str, joined: bool, domain: str, source: int, target: int) -> tuple[Link, ...]:
    """The links from one chip of a domain to another. `joined`: the domain is an UltraServer."""
    if source == target:
        return ()
    kind = instance_type(type_name)
    server, other = source // kind.chips, target // kind.chips
    if not joined or server == other:
        if kind.topology == "switch":
            return _through_switch(NEURONLINK, domain, f"switch of server {server}", source, target, _port(kind))
        first = server * kind.chips
        steps = pairwise(kind.wiring.path(source - first, target - first))
        return tuple(_wire(NEURONLINK, domain, first + a, first + b, _port(kind)) for a, b in steps)
    ultraserver = _ultraserver(kind)
    if ultraserver.topology == "switch":
        return _between_switched_servers(kind, ultraserver, domain, source, target)
    found = []
    for a, b in pairwise(Topology(ultraserver.topology, ultraserver.shape).path(source, target)):
        inside = a // kind.chips == b // kind.chips
        rate = _port(kind) if inside else ultraserver.link_bytes_per_s / 4  # two neighbours, two directions
        found.append(_wire(NEURONLINK if inside else ULTRASERVER, domain, a, b, rate))
    return tuple(found)


@lru_cache(maxsize=1 << 16)
def chip_routes(type_name: str, joined: bool, domain: str, source: int, target: int) -> tuple[tuple[Link, ...], ...]:
    """The two ways that many messages between two chips take in equal parts; one where they are the same.

    On a torus several ways are equally short. The second one turns at the other corner and goes round the other side.
    """
    forth = chip_route(type_name, joined, domain, source, target)
    back = chip_route(type_name, joined, domain, target, source)
    other = tuple(link._replace(source=link.target, target=link.source) for link in reversed(back))
    return (forth,) if other == forth else (forth, other)


def _between_switched_servers(
    kind: InstanceType, ultraserver: UltraServerType, domain: str, source: int, target: int
) -> tuple[Link, ...]:
    """Behind one switch: through it. Otherwise over the direct link to the partner server, and on from there."""
    server, other = source // kind.chips, target // kind.chips
    for number, servers in enumerate(ultraserver.switch_groups):
        if server in servers and other in servers:
            rate = ultraserver.switch_bytes_per_s / 2
            return _through_switch(ULTRASERVER, domain, f"UltraServer switch {number}", source, target, rate)
    partners = next(set(pair) - {server} for pair in ultraserver.server_links if server in pair)
    partner = partners.pop() * kind.chips + source % kind.chips
    direct = _wire(ULTRASERVER, domain, source, partner, ultraserver.link_bytes_per_s / 2)
    return (direct, *chip_route(kind.name, True, domain, partner, target))


def _ultraserver(kind: InstanceType) -> UltraServerType:
    if kind.ultraserver is None:
        raise ValueError(f"{kind.name} is not a member of an UltraServer")
    return ultraserver_type(kind.ultraserver)


def _port(kind: InstanceType) -> float:
    """One direction of one NeuronLink: published figures are taken as the sum of a chip's links and directions."""
    return kind.neuronlink_bytes_per_s / _LINKS_PER_CHIP.get(kind.topology, 1) / 2


def _wire(kind: str, domain: str, source: int, target: int, rate: float) -> Link:
    return Link(kind, domain, f"chip {source}", f"chip {target}", rate)


def _through_switch(kind: str, domain: str, switch: str, source: int, target: int, rate: float) -> tuple[Link, ...]:
    return (
        Link(kind, domain, f"chip {source}", switch, rate),
        Link(kind, domain, switch, f"chip {target}", rate),
    )


@cache
def _cards(type_name: str) -> tuple[int, ...]:
    """The number of the network card beside each chip; as in efa.py, cards are numbered by their PCI addresses."""
    kind = instance_type(type_name)
    addresses = sorted({slot.efa_bdf for slot in kind.devices if slot.efa_bdf})
    return tuple(
        addresses.index(slot.efa_bdf) if slot.efa_bdf else slot.index * kind.efa_count // kind.chips
        for slot in kind.devices
    )


@lru_cache(maxsize=1 << 14)
def _card(type_name: str, node: str, chip: int, direction: str) -> Link:
    kind = instance_type(type_name)
    card = _cards(type_name)[chip]
    return Link(EFA, node, f"card {card}", direction, kind.network_gbps / 8 * 1e9 / kind.efa_count)
