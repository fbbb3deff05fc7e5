"""Which chips and cores one container gets on the device-plugin road."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.catalog import InstanceType, instance_type, instance_types
from neuron_device_model.contiguous import UnsupportedCount, allowed_sets, choose_chips, choose_cores
from neuron_device_model.cores import visible_cores

TYPES = st.sampled_from(instance_types())


def layouts() -> list[tuple[InstanceType, int]]:
    return [(kind, lnc) for kind in instance_types() for lnc in kind.chip.logical_neuron_core_values]


def test_a_ring_gives_any_number_of_consecutive_chips_from_the_low_end() -> None:
    inf2 = instance_type("inf2.48xlarge")
    assert allowed_sets(inf2, 2)[:2] == ((0, 1), (1, 2))
    assert allowed_sets(inf2, 2)[-1] == (10, 11)
    assert allowed_sets(inf2, 5)[0] == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("name", ["trn1.32xlarge", "trn1n.32xlarge", "trn2.48xlarge"])
def test_a_torus_gives_rows_and_row_pairs(name: str) -> None:
    torus = instance_type(name)
    assert allowed_sets(torus, 4) == ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15))
    assert allowed_sets(torus, 8) == (tuple(range(8)), tuple(range(8, 16)))
    assert allowed_sets(torus, 16) == (tuple(range(16)),)
    assert len(allowed_sets(torus, 1)) == 16


@pytest.mark.parametrize("count", [0, -1, 2, 3, 5, 7, 12, 17])
def test_other_numbers_are_refused_on_a_torus_in_the_words_of_aws(count: int) -> None:
    with pytest.raises(UnsupportedCount) as refused:
        allowed_sets(instance_type("trn1.32xlarge"), count)
    assert str(refused.value) == (
        f"Instance type trn1.32xlarge does not support requests for device: {count}. "
        "Please request a different number of devices."
    )


@given(TYPES)
def test_one_chip_and_all_chips_are_always_allowed(kind: InstanceType) -> None:
    assert allowed_sets(kind, 1) == tuple((chip,) for chip in range(kind.chips))
    assert allowed_sets(kind, kind.chips) == (tuple(range(kind.chips)),)


def test_a_used_chip_closes_its_row_only() -> None:
    torus = instance_type("trn1.32xlarge")
    assert choose_chips(torus, set(range(16)) - {1}, 4) == (4, 5, 6, 7)
    assert choose_chips(torus, set(range(16)) - {1}, 8) == tuple(range(8, 16))
    assert choose_chips(torus, set(range(16)) - {1}, 16) is None


def test_small_requests_go_where_a_set_is_broken_already() -> None:
    torus = instance_type("trn1.32xlarge")
    assert choose_chips(torus, set(range(16)) - {14}, 1) == (12,)
    ring = instance_type("inf2.48xlarge")
    assert choose_chips(ring, {0, 1, 2, 3, 4, 8, 9, 10}, 2) == (8, 9)


@given(TYPES, st.data())
def test_chips_are_an_allowed_set_that_is_free_and_found_whenever_there_is_one(
    kind: InstanceType, data: st.DataObject
) -> None:
    free = data.draw(st.sets(st.integers(0, kind.chips - 1)))
    count = data.draw(st.sampled_from([n for n in range(1, kind.chips + 1) if _allowed(kind, n)]))
    chosen = choose_chips(kind, free, count)
    fitting = [chips for chips in allowed_sets(kind, count) if free.issuperset(chips)]
    assert chosen in fitting if fitting else chosen is None


def test_requests_of_like_size_fill_a_node() -> None:
    torus = instance_type("trn2.48xlarge")
    free = set(range(16))
    for _ in range(4):
        row = choose_chips(torus, free, 4)
        assert row
        free -= set(row)
    assert not free


def test_the_docs_sample_nine_cores_of_sixteen() -> None:
    assert choose_cores(instance_type("inf1.6xlarge"), 1, range(16), 9) == tuple(range(9))


def test_cores_go_to_a_chip_that_is_used_already() -> None:
    trn2 = instance_type("trn2.48xlarge")
    assert choose_cores(trn2, 2, set(range(64)) - {20}, 2) == (22, 23)
    assert choose_cores(trn2, 2, set(range(64)) - {20}, 1) == (21,)


def test_cores_prefer_one_chip_to_two() -> None:
    assert choose_cores(instance_type("trn2.48xlarge"), 2, set(range(64)) - {0, 1}, 4) == (4, 5, 6, 7)


def test_cores_of_several_chips_take_connected_ones() -> None:
    # Chips 3 and 4 have consecutive numbers and are not neighbours on the 4x4 torus.
    assert choose_cores(instance_type("trn2.48xlarge"), 2, range(12, 64), 8) == (16, 17, 18, 19, 20, 21, 22, 23)


def test_cores_are_aligned_where_it_costs_nothing() -> None:
    assert choose_cores(instance_type("trn2.48xlarge"), 1, {1, 2, 3, 4, 5}, 2) == (2, 3)


def test_more_cores_than_there_are_is_refused() -> None:
    with pytest.raises(UnsupportedCount, match=r"trn1.32xlarge does not support requests for core: 33\."):
        choose_cores(instance_type("trn1.32xlarge"), 1, range(32), 33)


@given(st.sampled_from(layouts()), st.data())
def test_cores_are_consecutive_free_and_found_whenever_there_is_a_run(
    layout: tuple[InstanceType, int], data: st.DataObject
) -> None:
    kind, lnc = layout
    total = kind.chips * visible_cores(kind.chip, lnc)
    free = set(range(total)) - data.draw(st.sets(st.integers(0, total - 1), max_size=20))
    count = data.draw(st.integers(1, total))
    chosen = choose_cores(kind, lnc, free, count)
    runs = any(free.issuperset(range(start, start + count)) for start in range(total - count + 1))
    assert (chosen is not None) == runs
    if chosen:
        assert free.issuperset(chosen)
        assert chosen == tuple(range(chosen[0], chosen[0] + count))


def _allowed(kind: InstanceType, count: int) -> bool:
    try:
        return bool(allowed_sets(kind, count))
    except UnsupportedCount:
        return False
