"""Which links a message uses: inside an instance, over the UltraServer, through switches, over the network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.catalog import instance_types
from neuron_device_model.collectives.fabric import (
    EFA,
    NEURONLINK,
    ULTRASERVER,
    Core,
    Fabric,
    Node,
    chip_routes,
    single_node,
)

MULTI_CHIP = [kind.name for kind in instance_types() if kind.chips > 1]


def ultraserver(type_name: str, servers: int = 4) -> Fabric:
    return Fabric(type_name, 2, tuple(Node(f"node-{seat}", "us", seat) for seat in range(servers)))


@given(st.sampled_from(MULTI_CHIP), st.data())
def test_every_way_leads_from_link_to_link_to_the_other_chip(type_name: str, data: st.DataObject) -> None:
    fabric = single_node(type_name)
    chips = st.integers(0, fabric.kind.chips - 1)
    a, b = data.draw(chips), data.draw(chips)
    for route in chip_routes(type_name, False, "node", a, b):
        ends = [f"chip {a}", *(link.target for link in route)]
        assert [link.source for link in route] == ends[:-1]
        assert ends[-1] == f"chip {b}"
        hops = 2 * (a != b) if fabric.kind.topology == "switch" else fabric.kind.wiring.distance(a, b)
        assert len(route) == hops


def test_a_chip_has_what_its_type_publishes_over_all_links_and_directions() -> None:
    fabric = single_node("trn2.48xlarge")
    out = {chip_routes("trn2.48xlarge", False, "node", 0, other)[0][0] for other in range(1, 16)}
    assert len(out) == 4
    assert 2 * sum(link.nominal for link in out) == fabric.kind.neuronlink_bytes_per_s


def test_ways_round_a_torus_take_both_sides_in_equal_parts() -> None:
    forth, other = chip_routes("trn1.32xlarge", False, "node", 0, 2)
    assert [link.target for link in forth] == ["chip 1", "chip 2"]
    assert [link.target for link in other] == ["chip 3", "chip 2"]


def test_equal_chips_of_neighbouring_servers_are_wired() -> None:
    fabric = ultraserver("trn2u.48xlarge")
    (link,) = fabric.route(Core(0, 5, 0), Core(1, 5, 3))
    assert (link.kind, link.source, link.target, link.nominal) == (ULTRASERVER, "chip 5", "chip 21", 64e9)
    kinds = [link.kind for link in fabric.route(Core(0, 0, 0), Core(2, 1, 0))]
    assert sorted(kinds) == [NEURONLINK, ULTRASERVER, ULTRASERVER]


def test_servers_that_do_not_work_together_meet_on_the_network() -> None:
    fabric = Fabric("trn2u.48xlarge", 2, (Node("a"), Node("b")))
    out, back = fabric.route(Core(0, 5, 0), Core(1, 7, 0))
    assert (out.kind, out.domain, out.target) == (EFA, "a", "out")
    assert (back.kind, back.domain, back.target) == (EFA, "b", "in")
    assert out.nominal == 25e9


def test_two_chips_of_trn1_share_a_network_card() -> None:
    fabric = Fabric("trn1.32xlarge", 1, (Node("a"), Node("b")))
    cards = [fabric.card(Core(0, chip, 0), "out") for chip in range(16)]
    assert len(set(cards)) == 8
    assert sum(card.nominal for card in set(cards)) == 100e9


def test_servers_behind_one_switch_go_through_it_and_others_over_the_direct_link() -> None:
    fabric = ultraserver("trn3.48xlarge")
    through = fabric.route(Core(0, 3, 0), Core(1, 4, 0))
    assert [link.target for link in through] == ["UltraServer switch 0", "chip 20"]
    (direct,) = fabric.route(Core(0, 3, 0), Core(2, 3, 0))
    assert (direct.source, direct.target, direct.nominal) == ("chip 3", "chip 35", 64e9)
    assert [link.target for link in fabric.route(Core(0, 3, 0), Core(3, 4, 0))] == [
        "chip 35",
        "UltraServer switch 1",
        "chip 52",
    ]


def test_two_fabrics_name_the_same_links_alike() -> None:
    one = ultraserver("trn2u.48xlarge")
    other = Fabric("trn2u.48xlarge", 2, (Node("node-3", "us", 3), Node("node-2", "us", 2)))
    assert one.route(Core(3, 1, 0), Core(2, 1, 0)) == other.route(Core(0, 1, 0), Core(1, 1, 0))


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [
        (("s", "m", "l"), ("s", "m", "l"), 0),
        (("s", "m", "l"), ("s", "m", "k"), 1),
        (("s", "m", "l"), ("s", "n", "k"), 2),
        (("s", "m", "l"), ("t", "n", "k"), 3),
        ((), (), 0),
    ],
)
def test_layers_between_nodes(a: tuple[str, ...], b: tuple[str, ...], apart: int) -> None:
    fabric = Fabric("trn2.48xlarge", 2, (Node("a", network=a), Node("b", network=b)))
    assert fabric.layers_apart(Core(0, 0, 0), Core(1, 0, 0)) == apart
