"""Which network nodes a node is under: EC2's instance topology, layer 1 at the top and layer 3 the closest.

What is joined stays together: the members of an UltraServer share all three. As with seats, a place is kept for as
long as there is somebody to keep it, and free room is taken from the lowest number upwards.

Without a shape the whole cluster shares layer 1, a pool shares layer 2, and four nodes with neighbouring numbers in
their names (worker, worker2, …) share layer 3; of UltraServer types, four UltraServers do.
"""

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from neuron_device_model.identity import network_node

Path = tuple[str, ...]

LAYERS = 3
_NODES_PER_BLOCK = 4
_ULTRASERVERS_PER_BLOCK = 4
# For nodes whose names carry no number: enough blocks to tell nodes apart, few enough to share some.
_BLOCKS = 8
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True, slots=True)
class Unit:
    """What is placed as one: an UltraServer, or a node that is in none."""

    name: str
    weight: int
    """How many nodes it has room for."""
    held: Path | None = None
    """Where it is already."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many nodes are under one network node of each layer; None: all of the pool, and at layer 1 of the cluster."""

    pool: str
    uid: str
    layer_3: int | None = None
    layer_2: int | None = None
    layer_1: int | None = None

    @property
    def top(self) -> str:
        """The network node of layer 1 that the whole cluster shares."""
        return network_node("layer-1/cluster")

    @property
    def middle(self) -> str:
        """The network node of layer 2 that the whole pool shares."""
        return network_node(f"layer-2/pool/{self.pool}")

    def path(self, block: int, capacity: int) -> Path:
        """The network nodes above a block of so many nodes that share layer 3."""
        first = block * capacity
        return (
            self._id(1, first // self.layer_1) if self.layer_1 else self.top,
            self._id(2, first // self.layer_2) if self.layer_2 else self.middle,
            self._id(3, block),
        )

    def _id(self, layer: int, number: int) -> str:
        return network_node(f"layer-{layer}/pool/{self.uid}/{number}")


def place_all(units: Sequence[Unit], shape: Shape) -> dict[str, Path]:
    """The network nodes above each unit, by name; new ones are placed in the order given."""
    paths = {unit.name: unit.held for unit in units if unit.held is not None}
    used = Counter[str]()
    for unit in units:
        if unit.held is not None:
            used[unit.held[-1]] += unit.weight
    first: dict[int, int] = {}
    for unit in units:
        if unit.name in paths:
            continue
        if shape.layer_3 is None and unit.weight == 1:
            paths[unit.name] = by_name(pool=shape.pool, node=unit.name)
            continue
        capacity = max(shape.layer_3 or _ULTRASERVERS_PER_BLOCK * unit.weight, unit.weight)
        block = first.get(unit.weight, 0)
        while used[(path := shape.path(block, capacity))[-1]] + unit.weight > capacity:
            block += 1
        first[unit.weight] = block
        used[path[-1]] += unit.weight
        paths[unit.name] = path
    return paths


def by_name(*, pool: str, node: str) -> Path:
    """Where a node is that depends on nothing but its name and its pool's."""
    keys = ("cluster", f"pool/{pool}", f"pool/{pool}/block/{_block(node)}")
    return tuple(network_node(f"layer-{layer}/{key}") for layer, key in enumerate(keys, start=1))


def _block(node: str) -> str:
    number = _NUMBER.search(node)
    if number:
        return f"{node[: number.start()]}{(int(number[1]) - 1) // _NODES_PER_BLOCK}"
    if "." in node:  # a host name of a cloud
        return f"hash-{zlib.crc32(node.encode()) % _BLOCKS}"
    return f"{node}0"  # kind calls its first worker `…-worker`, the next `…-worker2`
