"""Which algorithm is chosen, and whether its stages move what the operation has to move."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.catalog import instance_type
from neuron_device_model.collectives.algorithms.cycles import cycles
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import CORE, EFA, NEURONLINK, Core, Fabric, Node, single_node
from neuron_device_model.collectives.measurements import measurements
from neuron_device_model.collectives.model import Estimate, estimate, estimate_pairs, estimate_shares
from neuron_device_model.collectives.operations import OPERATIONS, operation

KIB, MIB = 1 << 10, 1 << 20
TRN2 = single_node("trn2.48xlarge")


def several(type_name: str, count: int, lnc: int, **ultraserver: str) -> Fabric:
    return Fabric(type_name, lnc, tuple(Node(f"n{seat}", seat=seat, **ultraserver) for seat in range(count)))


def all_cores(fabric: Fabric) -> tuple[Core, ...]:
    return tuple(core for node in range(len(fabric.nodes)) for core in fabric.cores(node))


def carried(answer: Estimate, kind: str) -> dict[str, float]:
    """What all links of a kind carry into each chip or card."""
    found: Counter[str] = Counter()
    for link, moved in answer.link_bytes().items():
        if link.kind == kind:
            found[link.target if kind != EFA else f"{link.domain} {link.source} {link.target}"] += moved
    return found


@pytest.mark.parametrize("row", [row for row in measurements() if row.algorithm], ids=lambda row: str(row.size))
def test_algorithms_by_size_are_those_that_nccom_test_printed(row) -> None:
    assert row.modelled().algorithm == row.algorithm


@pytest.mark.parametrize(
    ("size", "algorithm"),
    [(1 * MIB, "mesh"), (2 * MIB, "rdh"), (56 * MIB, "rdh"), (57 * MIB, "kangaring")],
)
def test_ranges_of_64_ranks_on_trn2_are_as_documented(size: int, algorithm: str) -> None:
    assert estimate(TRN2, TRN2.cores(), "all_reduce", size, "fp32").algorithm == algorithm


@pytest.mark.parametrize(
    ("ranks", "size", "algorithm"),
    [
        (TRN2.cores()[::4], 512 * MIB, "ring"),  # one rank for each chip
        (TRN2.cores()[:12], 4 * MIB, "kangaring"),  # three chips are no hypercube, but chips 0 to 2 form no ring
        (TRN2.cores()[:4], 512 * MIB, "ring"),  # one chip
    ],
)
def test_groups_that_an_algorithm_does_not_fit_take_another(ranks: tuple[Core, ...], size: int, algorithm: str) -> None:
    expected = "ring" if len(ranks) == 12 else algorithm
    assert estimate(TRN2, ranks, "all_gather", size, "bf16").algorithm == expected


def test_switches_rings_chains_and_networks_have_their_own() -> None:
    trn3, inf2 = single_node("trn3.48xlarge"), single_node("inf2.48xlarge")
    assert estimate(trn3, trn3.cores(), "all_gather", 64 * MIB, "bf16").algorithm == "mesh_switch"
    assert estimate(inf2, inf2.cores(), "all_gather", 64 * MIB, "bf16").algorithm == "kangaring"
    chain = single_node("inf2.24xlarge")
    assert estimate(chain, chain.cores(), "all_gather", 64 * MIB, "bf16").algorithm == "ring"
    trn1, trn2 = several("trn1.32xlarge", 2, 1), several("trn2.48xlarge", 2, 2)
    assert estimate(trn1, all_cores(trn1), "all_reduce", 16 * MIB, "bf16").algorithm == "hier"
    assert estimate(trn1, all_cores(trn1), "all_reduce", 512 * MIB, "bf16").algorithm == "flat_ring"
    assert estimate(trn2, all_cores(trn2), "all_reduce", 512 * MIB, "bf16").algorithm == "hier"


@pytest.mark.parametrize("size", [512 * KIB, 16 * MIB, 512 * MIB])
def test_an_all_gather_brings_every_chip_what_the_others_have(size: int) -> None:
    """Direct neighbours only, so what comes in is what is needed, times the copies: a mesh has one for each rank."""
    answer = estimate(TRN2, TRN2.cores(), "all_gather", size, "bf16")
    needed = size * 15 / 16
    came = carried(answer, NEURONLINK)
    assert len(came) == 16
    for moved in came.values():
        if answer.algorithm == "mesh":
            assert moved > 4 * needed
        else:
            assert moved == pytest.approx(needed)


@pytest.mark.parametrize("what", ["all_gather", "reduce_scatter"])
@pytest.mark.parametrize("nodes", [2, 3, 4, 20])
def test_each_node_sends_and_gets_its_share_over_the_network_once(what: str, nodes: int) -> None:
    fabric = several("trn2.48xlarge", nodes, 2)
    size = 64 * MIB
    answer = estimate(fabric, all_cores(fabric), what, size, "bf16")
    cards = carried(answer, EFA)
    assert len(cards) == nodes * 32
    assert sum(cards.values()) == pytest.approx(2 * nodes * size * (nodes - 1) / nodes)


def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather() -> None:
    for size in (4 * MIB, 512 * MIB):
        parts = [estimate(TRN2, TRN2.cores(), what, size, "bf16") for what in ("reduce_scatter", "all_gather")]
        whole = estimate(TRN2, TRN2.cores(), "all_reduce", size, "bf16")
        assert whole.seconds == pytest.approx(sum(part.seconds for part in parts) - whole.launch_s)


def test_an_ultraserver_gathers_over_its_own_links_and_needs_no_network() -> None:
    fabric = several("trn2u.48xlarge", 4, 2, ultraserver="us")
    for size in (64 * KIB, 16 * MIB, 1024 * MIB):
        answer = estimate(fabric, all_cores(fabric), "all_reduce", size, "bf16")
        assert not carried(answer, EFA)


@pytest.mark.parametrize(
    ("type_name", "chips", "count"),
    [
        ("trn2.48xlarge", tuple(range(16)), 2),
        ("trn1.32xlarge", (4, 5, 6, 7), 1),
        ("trn1.32xlarge", (0, 1, 2, 3, 4, 5, 6, 7), 1),
        ("trn1.32xlarge", (0, 4), 1),
        ("trn1.32xlarge", (0, 5), 0),
        ("trn1.32xlarge", (0, 1, 2), 0),
        ("inf2.48xlarge", tuple(range(12)), 1),
        ("inf2.48xlarge", (0, 1, 2, 3), 0),
        ("inf2.24xlarge", tuple(range(6)), 0),
    ],
)
def test_cycles_over_neighbours(type_name: str, chips: tuple[int, ...], count: int) -> None:
    assert len(cycles(type_name, chips)) == count


@given(st.sets(st.integers(0, 15), min_size=3))
def test_cycles_visit_each_chip_once_over_neighbours_and_share_no_link(chips: set[int]) -> None:
    wiring = instance_type("trn2.48xlarge").wiring
    links = set()
    for cycle in cycles("trn2.48xlarge", tuple(sorted(chips))):
        assert sorted(cycle) == sorted(chips)
        for a, b in pairwise((*cycle, cycle[0])):
            assert b in wiring.neighbours(a)
            assert frozenset((a, b)) not in links
            links.add(frozenset((a, b)))


def test_unequal_shares_cost_what_the_longest_one_needs() -> None:
    ranks = TRN2.cores()[:4]
    even = estimate_shares(TRN2, ranks, "alltoallv", [[MIB] * 4] * 4, "bf16")
    assert even.seconds == pytest.approx(estimate(TRN2, ranks, "alltoall", 4 * MIB, "bf16").seconds)
    one = estimate_shares(TRN2, ranks, "alltoallv", [[MIB, MIB, MIB, 8 * MIB], *([[MIB] * 4] * 3)], "bf16")
    assert one.seconds > 2 * even.seconds
    gathered = estimate_shares(TRN2, ranks, "all_gatherv", [[MIB] * 4, *([[0] * 4] * 3)], "bf16")
    assert gathered.size == MIB


def test_a_permute_goes_around_neighbours_only() -> None:
    row = [core for core in TRN2.cores() if core.chip < 4 and core.core == 0]
    around = estimate(TRN2, row, "permute", MIB, "uint8")
    one = estimate_pairs(TRN2, [(row[0], row[1])], "sendrecv", MIB, "uint8")
    assert around.seconds == one.seconds  # each message has a link for itself
    with pytest.raises(UnsupportedCollective, match="not neighbours"):
        estimate_pairs(TRN2, [(row[0], row[2])], "permute", MIB, "uint8")


@pytest.mark.parametrize(
    ("ranks", "what", "size", "dtype", "words"),
    [
        ((), "all_gather", 4, "fp32", "at least one rank"),
        ((Core(0, 0, 0),) * 2, "all_gather", 4, "fp32", "twice"),
        ((Core(0, 16, 0),), "all_gather", 4, "fp32", "no such core"),
        ((Core(0, 0, 4),), "all_gather", 4, "fp32", "no such core"),
        ((Core(0, 0, 0), Core(0, 0, 1)), "all_gather", 6, "fp32", "multiple of 4"),
        ((Core(0, 0, 0), Core(0, 0, 1)), "all_gather", 0, "fp32", "multiple of 4"),
        ((Core(0, 0, 0), Core(0, 0, 1)), "all_gather", 8, "fp64", "did you mean fp16"),
        ((Core(0, 0, 0), Core(0, 0, 1)), "allgather", 8, "fp32", "did you mean all_gather"),
        ((Core(0, 0, 0),), "sendrecv", 8, "fp32", "even number"),
        ((Core(0, 0, 0),), "alltoallv", 8, "fp32", "estimate_shares"),
    ],
)
def test_what_cannot_be_is_said(ranks: tuple[Core, ...], what: str, size: int, dtype: str, words: str) -> None:
    with pytest.raises(UnsupportedCollective, match=words):
        estimate(TRN2, ranks, what, size, dtype)


def test_platforms_without_collectives_or_network_say_so() -> None:
    inf1, inf2 = single_node("inf1.6xlarge"), several("inf2.48xlarge", 2, 1)
    with pytest.raises(UnsupportedCollective, match="no collectives"):
        estimate(inf1, inf1.cores(), "all_gather", MIB, "bf16")
    with pytest.raises(UnsupportedCollective, match="no EFA"):
        estimate(inf2, all_cores(inf2), "all_gather", MIB, "bf16")


def test_groups_over_nodes_have_the_same_cores_on_each() -> None:
    fabric = several("trn2.48xlarge", 2, 2)
    with pytest.raises(UnsupportedCollective, match="same local ranks"):
        estimate(fabric, (Core(0, 0, 0), Core(1, 1, 0)), "all_gather", MIB, "bf16")


def test_short_names_and_factors_are_those_of_nccom_test() -> None:
    assert operation("allr") is operation("all_reduce")
    assert {kind.name: round(kind.bus_factor(64), 3) for kind in OPERATIONS} == {
        "all_gather": 0.984,
        "reduce_scatter": 0.984,
        "all_reduce": 1.969,
        "alltoall": 0.984,
        "all_gatherv": 0.984,
        "alltoallv": 0.984,
        "sendrecv": 1.0,
        "permute": 1.0,
    }


def test_cores_of_one_chip_use_no_link_but_their_own() -> None:
    answer = estimate(TRN2, TRN2.cores()[:4], "all_reduce", 64 * MIB, "bf16")
    assert {link.kind for link in answer.link_bytes()} == {CORE}
