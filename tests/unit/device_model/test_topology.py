"""Neighbours, distances, paths and bisection, against brute force."""

from collections import deque
from itertools import combinations, pairwise
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.topology import Topology

extents = st.integers(2, 6)
topologies = st.one_of(
    st.just(Topology("single", (1,))),
    st.builds(lambda n: Topology("chain", (n,)), st.integers(2, 20)),
    st.builds(lambda n: Topology("ring", (n,)), st.integers(3, 20)),
    st.builds(lambda *shape: Topology("torus2d", shape), extents, extents),
    st.builds(lambda *shape: Topology("torus3d", shape), extents, extents, extents),
    st.builds(lambda n: Topology("switch", (n,)), st.integers(2, 20)),
)

SMALL = [
    *(Topology("chain", (n,)) for n in range(2, 10)),
    *(Topology("ring", (n,)) for n in range(3, 10)),
    *(Topology("torus2d", (a, b)) for a in range(2, 7) for b in range(2, 7) if a * b <= 12),
    *(Topology("torus3d", shape) for shape in [(2, 2, 2), (2, 2, 3), (2, 3, 2), (3, 2, 2)]),
]


@st.composite
def topology_with_chips(draw: st.DrawFn, count: int) -> tuple[Topology, list[int]]:
    topology = draw(topologies)
    chips = st.integers(0, topology.size - 1)
    return topology, [draw(chips) for _ in range(count)]


def distances_by_search(topology: Topology, start: int) -> dict[int, int]:
    found, queue = {start: 0}, deque([start])
    while queue:
        chip = queue.popleft()
        for neighbour in topology.neighbours(chip):
            if neighbour not in found:
                found[neighbour] = found[chip] + 1
                queue.append(neighbour)
    return found


def bisection_by_search(topology: Topology) -> int:
    links = {(a, b) for a in range(topology.size) for b in topology.neighbours(a) if a < b}
    halves = (set(half) for half in combinations(range(topology.size), topology.size // 2))
    return min(sum((a in half) != (b in half) for a, b in links) for half in halves)


@given(topology_with_chips(3))
def test_distance_is_a_metric(drawn: tuple[Topology, list[int]]) -> None:
    topology, (a, b, c) = drawn
    assert (topology.distance(a, b) == 0) == (a == b)
    assert topology.distance(a, b) == topology.distance(b, a)
    assert topology.distance(a, c) <= topology.distance(a, b) + topology.distance(b, c)


@given(topology_with_chips(1))
def test_distance_equals_breadth_first_search(drawn: tuple[Topology, list[int]]) -> None:
    topology, [start] = drawn
    found = {chip: topology.distance(start, chip) for chip in range(topology.size)}
    assert found == distances_by_search(topology, start)


@given(topology_with_chips(2))
def test_path_is_a_walk_over_links_as_long_as_the_distance(drawn: tuple[Topology, list[int]]) -> None:
    topology, (a, b) = drawn
    path = topology.path(a, b)
    assert (path[0], path[-1]) == (a, b)
    assert len(path) - 1 == topology.distance(a, b)
    assert all(there in topology.neighbours(here) for here, there in pairwise(path))


@given(topology_with_chips(1))
def test_neighbours_are_mutual_ascending_and_others(drawn: tuple[Topology, list[int]]) -> None:
    topology, [chip] = drawn
    neighbours = topology.neighbours(chip)
    assert list(neighbours) == sorted(set(neighbours) - {chip})
    assert all(chip in topology.neighbours(other) for other in neighbours)


@given(topologies)
def test_every_chip_has_coordinates_of_its_own_in_row_major_order(topology: Topology) -> None:
    coordinates = [topology.coordinates(chip) for chip in range(topology.size)]
    assert coordinates == sorted(set(coordinates))
    assert len(coordinates) == prod(topology.shape)


@pytest.mark.parametrize("topology", SMALL, ids=lambda topology: f"{topology.kind}{topology.shape}")
def test_bisection_equals_brute_force(topology: Topology) -> None:
    assert topology.bisection_width() == bisection_by_search(topology)


@pytest.mark.parametrize(
    ("topology", "links"),
    [
        (Topology("single", (1,)), 0),
        (Topology("chain", (6,)), 1),
        (Topology("ring", (12,)), 2),
        (Topology("torus2d", (4, 4)), 8),
        (Topology("torus3d", (4, 4, 4)), 32),
        (Topology("switch", (16,)), 8),
    ],
)
def test_bisection_of_real_instances(topology: Topology, links: int) -> None:
    assert topology.bisection_width() == links


def test_a_torus_chip_sits_at_its_row_and_column() -> None:
    assert Topology("torus2d", (4, 4)).coordinates(6) == (1, 2)


def test_a_tie_goes_the_ascending_way_round() -> None:
    assert Topology("ring", (4,)).path(0, 2) == (0, 1, 2)
    assert Topology("ring", (4,)).path(2, 0) == (2, 3, 0)


def test_columns_are_walked_before_rows() -> None:
    assert Topology("torus2d", (4, 4)).path(0, 5) == (0, 1, 5)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("single", (2,)), ("chain", (1,)), ("ring", (2,)), ("torus2d", (16,)), ("torus3d", (4, 4)), ("switch", (1,)),
     ("torus2d", (1, 4)), ("star", (4,))],
)  # fmt: skip
def test_impossible_shapes_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="topology"):
        Topology(kind, shape)


def test_a_chip_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="no chip 16 in a torus2d of 16"):
        Topology("torus2d", (4, 4)).distance(0, 16)
    with pytest.raises(ValueError, match="no chip -1 in a switch of 4"):
        Topology("switch", (4,)).neighbours(-1)
