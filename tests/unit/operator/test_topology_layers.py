"""The network nodes above a node: together what is joined, room from the lowest number upwards, and nobody moves."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_operator.topology.layers import Shape, Unit, by_name, place_all


def shape(layer_3=None, layer_2=None, layer_1=None, uid="uid-1"):
    return Shape(pool="default", uid=uid, layer_3=layer_3, layer_2=layer_2, layer_1=layer_1)


def place(names, of, *, held=(), weight=1):
    held = dict(held)
    return place_all([Unit(name, weight, held.get(name)) for name in names], of)


def test_without_a_shape_neighbouring_names_share_the_closest_layer():
    paths = place(["worker", "worker2", "worker4", "worker5"], shape())
    assert paths["worker"] == paths["worker2"] == paths["worker4"] == by_name(pool="default", node="worker")
    assert paths["worker5"][:2] == paths["worker"][:2]
    assert paths["worker5"][2] != paths["worker"][2]


def test_four_ultraservers_share_the_closest_layer_where_nothing_is_said():
    paths = place([f"us{n}" for n in range(9)], shape(), weight=4)
    assert [list(Counter(path[2] for path in paths.values()).values())] == [[4, 4, 1]]
    assert {path[:2] for path in paths.values()} == {by_name(pool="default", node="worker")[:2]}


def test_each_layer_holds_as_many_nodes_as_the_pool_says():
    paths = place([f"n{n}" for n in range(40)], shape(4, 8, 16))
    for layer, nodes in ((0, 16), (1, 8), (2, 4)):
        assert max(Counter(path[layer] for path in paths.values()).values()) == nodes
    assert len({path[0] for path in paths.values()}) == 3


def test_pools_share_the_top_unless_they_say_otherwise():
    one, other = (place(["n"], shape(4, layer_2, layer_1, uid=uid))["n"] for uid, layer_2, layer_1 in (
        ("uid-1", None, None), ("uid-2", 8, None)
    ))  # fmt: skip
    assert one[0] == other[0]
    assert one[1:] != other[1:]
    assert place(["n"], shape(4, 8, 16))["n"][0] != one[0]


def test_what_has_a_place_keeps_it_when_the_shape_changes_and_counts_in_it():
    before = place([f"n{n}" for n in range(4)], shape(4))
    after = place([*before, "new"], shape(2), held=before)
    assert {name: after[name] for name in before} == before
    assert after["new"] not in before.values()
    wider = place([*before, "new"], shape(8), held=before)
    assert wider["new"] == before["n0"]


@settings(max_examples=100)
@given(
    steps=st.lists(st.sets(st.sampled_from([f"n{n}" for n in range(20)])), max_size=8),
    layer_3=st.sampled_from([4, 8, 12]),
    weight=st.sampled_from([1, 4]),
)
def test_nobody_moves_and_no_network_node_has_more_than_its_number(steps, layer_3, weight):
    held = {}
    for fleet in steps:
        paths = place(sorted(fleet), shape(layer_3, layer_3 * 2, layer_3 * 4), held=held, weight=weight)
        assert paths.keys() == fleet
        assert all(paths[name] == held[name] for name in fleet & held.keys())
        for layer, nodes in ((2, layer_3), (1, layer_3 * 2), (0, layer_3 * 4)):
            assert all(count * weight <= nodes for count in Counter(path[layer] for path in paths.values()).values())
        held = paths
