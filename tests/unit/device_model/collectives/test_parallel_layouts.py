"""Groups of parallel layouts, on the devices that the article on Neuron's collectives has them on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import NEURONLINK, Core, single_node
from neuron_device_model.collectives.layouts import (
    DATA,
    DIMENSIONS,
    PIPELINE,
    TENSOR,
    Exchange,
    ExchangeCost,
    Layout,
    step_costs,
)
from neuron_device_model.collectives.model import estimate

MIB = 1 << 20
EXTENTS = st.integers(1, 6)


def chips(ranks: tuple[Core, ...], group: tuple[int, ...]) -> list[int]:
    return sorted({ranks[number].chip for number in group})


def costs(type_name: str, layout: Layout, *exchanges: Exchange) -> tuple[ExchangeCost, ...]:
    fabric = single_node(type_name)
    return step_costs(fabric, fabric.cores(), layout, exchanges)


@given(st.builds(Layout, EXTENTS, EXTENTS, EXTENTS))
def test_every_rank_is_in_one_group_of_each_dimension_and_two_groups_meet_once(layout: Layout) -> None:
    groups = {dimension: layout.groups(dimension) for dimension in DIMENSIONS}
    for dimension, extent in zip(DIMENSIONS, layout.extents, strict=True):
        assert {len(group) for group in groups[dimension]} == {extent}
        assert sorted(number for group in groups[dimension] for number in group) == list(range(layout.size))
    assert all(len({*one} & {*other}) <= 1 for one in groups[TENSOR] for other in groups[DATA])


def test_8_by_4_on_trn1_is_a_row_for_each_tensor_group_and_a_column_for_two_data_groups() -> None:
    layout, ranks = Layout(tensor=8, data=4), single_node("trn1.32xlarge").cores()
    assert [chips(ranks, group) for group in layout.groups(TENSOR)] == [list(range(n, n + 4)) for n in (0, 4, 8, 12)]
    assert [chips(ranks, group) for group in layout.groups(DATA)] == [
        [n, n + 4, n + 8, n + 12] for n in (0, 0, 1, 1, 2, 2, 3, 3)
    ]
    tensor, data = costs(
        "trn1.32xlarge",
        layout,
        Exchange(TENSOR, "all_reduce", 16 * MIB, "bf16"),
        Exchange(DATA, "all_reduce", 16 * MIB, "bf16"),
    )
    assert tensor.shared() == {}
    assert set(data.shared().values()) == {2}


def test_8_by_3_on_inf2_is_a_third_of_the_ring_for_each_tensor_group() -> None:
    layout, ranks = Layout(tensor=8, data=3), single_node("inf2.48xlarge").cores()
    assert [chips(ranks, group) for group in layout.groups(TENSOR)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    tensor, data = costs(
        "inf2.48xlarge",
        layout,
        Exchange(TENSOR, "all_gather", MIB, "bf16"),
        Exchange(DATA, "all_reduce", MIB, "bf16"),
    )
    assert tensor.shared() == {}
    assert len(data.shared()) == 24  # every link of the ring, both ways


def test_4_by_4_by_4_on_trn2_is_a_chip_a_row_and_a_way_down() -> None:
    layout, ranks = Layout(tensor=4, data=4, pipeline=4), single_node("trn2.48xlarge").cores()
    assert [chips(ranks, group) for group in layout.groups(TENSOR)] == [[n] for n in range(16)]
    assert [chips(ranks, group) for group in layout.groups(DATA)][:5] == [[0, 1, 2, 3]] * 4 + [[4, 5, 6, 7]]
    assert chips(ranks, layout.groups(PIPELINE)[0]) == [0, 4, 8, 12]
    tensor, data, pipeline = costs(
        "trn2.48xlarge",
        layout,
        Exchange(TENSOR, "all_reduce", 16 * MIB, "bf16", times=48),
        Exchange(DATA, "reduce_scatter", 64 * MIB, "bf16"),
        Exchange(PIPELINE, "sendrecv", MIB, "bf16", times=8),
    )
    assert not any(link.kind == NEURONLINK for answer in tensor.estimates for link in answer.link_bytes())
    assert set(data.shared().values()) == {4}
    assert tensor.seconds == 48 * tensor.estimates[0].seconds
    (messages,) = pipeline.estimates
    assert {moved for link, moved in messages.link_bytes().items() if link.kind == NEURONLINK} == {4 * MIB}


def test_64_data_parallel_ranks_on_trn2_are_one_group() -> None:
    fabric = single_node("trn2.48xlarge")
    (cost,) = costs("trn2.48xlarge", Layout(data=64), Exchange(DATA, "all_reduce", 256 * MIB, "bf16"))
    assert cost.seconds == estimate(fabric, fabric.cores(), "all_reduce", 256 * MIB, "bf16").seconds


def test_groups_that_share_links_take_longer_than_one_alone() -> None:
    fabric = single_node("trn1.32xlarge")
    layout = Layout(tensor=8, data=4)
    (cost,) = costs("trn1.32xlarge", layout, Exchange(DATA, "alltoall", 256 * MIB, "bf16"))
    alone = estimate(fabric, [fabric.cores()[n] for n in layout.groups(DATA)[0]], "alltoall", 256 * MIB, "bf16")
    assert cost.seconds > 1.2 * alone.seconds


def test_tensor_groups_across_the_board_cost_more_than_on_neighbouring_chips() -> None:
    fabric = single_node("trn2.48xlarge")
    near = fabric.cores()
    far = tuple(near[number * 16 % 64 + number // 4] for number in range(64))
    exchange = Exchange(TENSOR, "all_reduce", 4 * MIB, "bf16")
    times = [step_costs(fabric, ranks, Layout(4, 16), [exchange])[0].seconds for ranks in (near, far)]
    assert times[0] < times[1]


def test_a_dimension_of_one_costs_nothing_and_ranks_have_to_fit() -> None:
    (cost,) = costs("trn1.32xlarge", Layout(data=32), Exchange(TENSOR, "all_reduce", MIB, "bf16"))
    assert cost.seconds == 0
    with pytest.raises(UnsupportedCollective, match="8 x 3 x 1 needs 24 ranks: there are 32"):
        costs("trn1.32xlarge", Layout(8, 3))
