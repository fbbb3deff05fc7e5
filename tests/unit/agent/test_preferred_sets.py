"""Which devices the plugin wishes for when nobody has chosen: AWS's sets, or what is close together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.catalog import instance_types
from neuron_dra_driver.device_plugin_road.preferred import preferred_chips, preferred_cores
from neuron_dra_driver.node import SimulatedNode, standalone

TRN2 = standalone(name="n", type_name="trn2.48xlarge")
NODES = st.sampled_from([standalone(name="n", type_name=kind.name) for kind in instance_types()])


def test_a_row_is_wished_for_and_completed() -> None:
    assert preferred_chips(TRN2, set(range(16)) - {0}, 4) == (4, 5, 6, 7)
    assert preferred_chips(TRN2, range(16), 4, must=[9]) == (8, 9, 10, 11)


@pytest.mark.parametrize(
    ("available", "count", "close"),
    [
        (range(16), 2, (0, 1)),
        (range(16), 3, (0, 1, 2)),  # three in a row; the fourth closes the ring
        ({0, 3, 6, 12, 15}, 4, (0, 3, 12, 15)),  # the corners are neighbours on a torus
        ({2, 5, 8}, 3, (2, 5, 8)),
    ],
)
def test_numbers_that_no_set_has_get_chips_that_are_close(
    available: set[int], count: int, close: tuple[int, ...]
) -> None:
    assert preferred_chips(TRN2, available, count) == close


def test_cores_that_are_not_in_a_run_come_from_few_chips() -> None:
    assert preferred_cores(TRN2, {0, 2, 4, 6, 20, 22}, 3) == (0, 2, 4)
    assert preferred_cores(TRN2, {0, 20, 21, 22}, 2, must=[20]) == (20, 21)


@given(NODES, st.booleans(), st.data())
def test_a_wish_can_always_be_fulfilled(node: SimulatedNode, chips: bool, data: st.DataObject) -> None:
    total = node.instance_type.chips if chips else node.instance_type.cores(node.logical_neuron_core)
    available = data.draw(st.sets(st.integers(0, total - 1)))
    count = data.draw(st.integers(1, total))
    must = data.draw(st.sets(st.sampled_from(sorted(available)), max_size=count)) if available else set()
    wish = (preferred_chips if chips else preferred_cores)(node, available, count, must=must)
    assert len(wish) == len(set(wish)) == min(count, len(available))
    assert must <= set(wish) <= available
