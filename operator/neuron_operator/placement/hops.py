"""How far nodes are from one another, and what a ring through a gang's pods costs.

A collective passes its data round the ranks in order and back to the first, so that is what is counted: the hops
between each pod's node and the next one's, and from the last to the first. Inside an UltraServer a hop is one of
NeuronLink, as the catalogue wires it: around the ring on Trn2, through one switch or along a direct link on Trn3.
Between UltraServers it is the network, and each layer that must be climbed counts as much as ten hops of NeuronLink,
so that no way over the network is ever as short as one without. The ten is ours.
"""

from collections import deque
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Final

from neuron_device_model.catalog import UltraServerType, UnknownInstanceType, instance_type, ultraserver_types

from neuron_operator.placement.model import Level, NodeState

LAYER: Final = 10
"""What climbing a network layer costs, in hops of NeuronLink."""

_LAYERS: Final[tuple[Level, ...]] = ("network-3", "network-2", "network-1")
_SERVERS: Final = 4
"""Of an UltraServer of a type that the catalogue does not know: a ring, as Trn2's."""


def distance(one: NodeState, other: NodeState) -> int:
    """Hops from a node to another."""
    if one.name == other.name:
        return 0
    if _shared(one, other, "ultraserver") or _shared(one, other, "ultraserver-2"):
        return server_hops(one.instance_type, one.position, other.position)
    for layer, level in enumerate(_LAYERS, start=1):
        if _shared(one, other, level):
            return layer * LAYER
    return (len(_LAYERS) + 1) * LAYER


def ring_cost(nodes: Sequence[NodeState]) -> int:
    """Hops of a ring through nodes in this order, back to the first."""
    return sum(distance(node, nodes[index - 1]) for index, node in enumerate(nodes))


def server_hops(instance_type: str, one: int | None, other: int | None) -> int:
    """Hops between equal chips of two nodes of an UltraServer, by the nodes' numbers in it."""
    if one is None or other is None:
        return 1
    table = _table(instance_type)
    return table[one][other] if max(one, other) < len(table) else int(one != other)


@cache
def ultraserver_type(name: str) -> UltraServerType | None:
    """The UltraServer that nodes of an instance type form; None: none, or not known."""
    try:
        wanted = instance_type(name).ultraserver
    except UnknownInstanceType:
        return None
    return next((kind for kind in ultraserver_types() if kind.name == wanted), None)


@cache
def _table(instance_type: str) -> tuple[tuple[int, ...], ...]:
    kind = ultraserver_type(instance_type)
    servers = kind.servers if kind else _SERVERS
    links = {(server, (server + 1) % servers) for server in range(servers)}
    if kind:
        links = {(one, other) for one, other in kind.server_links}
        links |= {pair for group in kind.switch_groups for pair in combinations(group, 2)}
    near: dict[int, set[int]] = {server: set() for server in range(servers)}
    for one, other in links:
        near[one].add(other)
        near[other].add(one)
    return tuple(_hops_from(server, near) for server in range(servers))


def _hops_from(start: int, near: dict[int, set[int]]) -> tuple[int, ...]:
    found = {start: 0}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for other in near[here] - found.keys():
            found[other] = found[here] + 1
            queue.append(other)
    return tuple(found[server] for server in range(len(near)))


def _shared(one: NodeState, other: NodeState, level: Level) -> bool:
    domain = one.domains.get(level)
    return domain is not None and domain == other.domains.get(level)
