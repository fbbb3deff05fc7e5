"""Placement counts a ring, and not the steps of a job that it knows nothing of: they put places in the same order."""

from itertools import pairwise

import pytest
from neuron_device_model.collectives.fabric import Fabric, Node
from neuron_device_model.collectives.layouts import Layout
from neuron_device_model.steps.training import step
from neuron_device_model.steps.transformer import Transformer
from neuron_operator.placement import Level, NodeState
from neuron_operator.placement.ways import ring_cost

TYPE = "trn2u.48xlarge"
LEVELS: tuple[Level, ...] = ("network-1", "network-2", "network-3")
Seat = tuple[str, int, str]
"""UltraServer, number in it, and network nodes as a path of letters, the spine first."""

PLACES: tuple[tuple[Seat, ...], ...] = (
    (("a", 0, "xyz"), ("a", 1, "xyz"), ("a", 2, "xyz"), ("a", 3, "xyz")),
    (("a", 0, "xyz"), ("a", 1, "xyz"), ("b", 0, "xyz"), ("b", 1, "xyz")),
    (("a", 0, "xyz"), ("b", 0, "xyz"), ("c", 0, "xyz"), ("d", 0, "xyz")),
    (("a", 0, "xyz"), ("b", 0, "xyw"), ("c", 0, "xvu"), ("d", 0, "tsr")),
)
"""Of four whole nodes, from near to far."""


def way(seats: tuple[Seat, ...]) -> int:
    return ring_cost(
        [
            NodeState(
                f"{server}{number}",
                16,
                (),
                TYPE,
                {
                    "ultraserver": server,
                    **{level: path[: depth + 1] for depth, level in enumerate(LEVELS)},
                },
                number,
            )
            for server, number, path in seats
        ]
    )


def seconds(seats: tuple[Seat, ...], layout: Layout) -> float:
    nodes = tuple(Node(f"{server}{number}", server, number, tuple(path)) for server, number, path in seats)
    fabric = Fabric(TYPE, 2, nodes)
    ranks = [core for number in range(len(nodes)) for core in fabric.cores(number)]
    return step(fabric, ranks, layout, Transformer(32, 4096, 2048, 256), overlap=False).seconds


@pytest.mark.parametrize("layout", [Layout(64, 4), Layout(16, 16), Layout(16, 4, 4), Layout(1, 256)], ids=str)
def test_a_place_of_longer_ways_is_one_of_longer_steps(layout: Layout) -> None:
    assert all(way(near) < way(far) for near, far in pairwise(PLACES))
    times = [seconds(place, layout) for place in PLACES]
    # a layer of the network costs next to nothing
    assert all(near <= far * 1.001 for near, far in pairwise(times))
    assert times[0] < times[-1]
