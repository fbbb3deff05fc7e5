"""How far nodes are from one another, and what a ring through a gang's pods costs: time, by the model of collectives.

A collective passes its data round the ranks in order and back to the first, so that is what is counted: what a message
takes from each pod's node to the next one's, and from the last to the first. Inside an UltraServer it goes over
NeuronLink, as the catalogue wires it: around the ring on Trn2, through one switch or along a direct link on Trn3.
Between UltraServers it is EFA, and each layer of the network that must be climbed is some more.

The message is one of 1 MiB between equal chips: large enough that the rate of a way counts, and not the waiting alone.
Whole nanoseconds, so that equal rings have equal costs in whatever order they are added up.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final

from neuron_device_model.catalog import UltraServerType, UnknownInstanceType, instance_type, ultraserver_types
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import Core, Fabric, Node
from neuron_device_model.collectives.model import estimate_pairs
from neuron_device_model.collectives.operations import SEND_RECV

from neuron_operator.placement.model import Level, NodeState

MESSAGE: Final = 1 << 20
"""Bytes."""

_NETWORK: Final[tuple[Level, ...]] = ("network-3", "network-2", "network-1")
_REFERENCE: Final = "trn2u.48xlarge"
"""Stands for types that the catalogue does not know, or whose chips know no collectives."""


def distance(one: NodeState, other: NodeState) -> int:
    """Nanoseconds of a message from a node to another."""
    if one.name == other.name:
        return 0
    if _shared(one, other, "ultraserver") or _shared(one, other, "ultraserver-2"):
        return between_servers(one.instance_type, one.position, other.position)
    climbed = next((layer for layer, level in enumerate(_NETWORK) if _shared(one, other, level)), len(_NETWORK))
    return _over_network(one.instance_type, climbed)


def ring_cost(nodes: Sequence[NodeState]) -> int:
    """Nanoseconds of a message round a ring through nodes in this order, back to the first."""
    return sum(distance(node, nodes[index - 1]) for index, node in enumerate(nodes))


@cache
def between_servers(type_name: str, one: int | None, other: int | None) -> int:
    """Nanoseconds between equal chips of two nodes of an UltraServer, by the nodes' numbers in it.

    Of nodes whose numbers are not known, or that the catalogue's UltraServer does not have: between neighbours.
    """
    if one is not None and one == other:
        return 0
    kind = ultraserver_type(type_name)
    if kind is None:
        return between_servers(_REFERENCE, one, other)
    if one is None or other is None or max(one, other) >= kind.servers:
        one, other = 0, 1
    return _message(type_name, (Node("one", "all", one), Node("other", "all", other)))


@cache
def ultraserver_type(name: str) -> UltraServerType | None:
    """The UltraServer that nodes of an instance type form; None: none, or not known."""
    try:
        wanted = instance_type(name).ultraserver
    except UnknownInstanceType:
        return None
    return next((kind for kind in ultraserver_types() if kind.name == wanted), None)


@cache
def _over_network(type_name: str, climbed: int) -> int:
    """Between two nodes, `climbed` layers above the leaf that they would share if they were as near as can be."""
    layers = len(_NETWORK) - climbed
    nodes = (
        Node(name, network=tuple(str(layer) if layer < layers else name for layer in range(len(_NETWORK))))
        for name in ("one", "other")
    )
    return _message(type_name, tuple(nodes))


def _message(type_name: str, nodes: tuple[Node, ...]) -> int:
    try:
        lnc = instance_type(type_name).chip.default_logical_neuron_core
        pair = (Core(0, 0, 0), Core(1, 0, 0))
        found = estimate_pairs(Fabric(type_name, lnc, nodes), [pair], SEND_RECV, MESSAGE, "bf16")
    except (UnknownInstanceType, UnsupportedCollective):
        return _message(_REFERENCE, nodes)
    return round((found.seconds - found.launch_s) * 1e9)


def _shared(one: NodeState, other: NodeState, level: Level) -> bool:
    domain = one.domains.get(level)
    return domain is not None and domain == other.domains.get(level)
