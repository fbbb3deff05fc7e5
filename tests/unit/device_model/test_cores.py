"""Visible cores and their memory, by logical NeuronCore configuration."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.catalog import instance_type
from neuron_device_model.cores import (
    CoreMemory,
    UnsupportedLogicalNeuronCore,
    core_ids,
    core_list,
    core_memory,
    visible_cores,
)

GIB = 1 << 30


@pytest.mark.parametrize(
    ("name", "lnc", "per_chip", "per_instance"),
    [
        ("inf1.6xlarge", 1, 4, 16),
        ("inf2.48xlarge", 1, 2, 24),
        ("trn1.32xlarge", 1, 2, 32),
        ("trn2.48xlarge", 2, 4, 64),
        ("trn2.48xlarge", 1, 8, 128),
        ("trn3.48xlarge", 2, 4, 64),
    ],
)
def test_visible_cores(name: str, lnc: int, per_chip: int, per_instance: int) -> None:
    kind = instance_type(name)
    assert visible_cores(kind.chip, lnc) == per_chip
    assert kind.cores(lnc) == per_instance


@pytest.mark.parametrize(
    ("name", "lnc", "memory"),
    [
        ("inf1.xlarge", 1, CoreMemory(2 * GIB, 1)),
        ("inf2.xlarge", 1, CoreMemory(16 * GIB, 1)),
        ("trn1.2xlarge", 1, CoreMemory(16 * GIB, 1)),
        ("trn2.48xlarge", 2, CoreMemory(24 * GIB, 1)),
        ("trn2.48xlarge", 1, CoreMemory(24 * GIB, 2)),
        ("trn3.48xlarge", 2, CoreMemory(36 * GIB, 1)),
    ],
)
def test_memory_of_a_core(name: str, lnc: int, memory: CoreMemory) -> None:
    assert core_memory(instance_type(name).chip, lnc) == memory


def test_cores_that_share_a_bank_have_half_each() -> None:
    assert core_memory(instance_type("trn2.48xlarge").chip, 1).bytes_per_core == 12 * GIB


def test_cores_are_numbered_over_all_devices() -> None:
    chip = instance_type("trn2.48xlarge").chip
    assert core_ids(chip, 2, device=1) == (4, 5, 6, 7)
    assert core_ids(chip, 1, device=1) == tuple(range(8, 16))


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], ""),
        ([3], "3"),
        ([0, 1], "0-1"),
        ([0, 1, 2, 3, 8], "0-3,8"),
        ([9, 1, 8, 0, 4], "0-1,4,8-9"),
        ([2, 2, 3], "2-3"),
        (range(64), "0-63"),
    ],
)
def test_core_numbers_are_written_as_the_runtime_takes_them(ids: Iterable[int], text: str) -> None:
    assert core_list(ids) == text


@given(st.sets(st.integers(0, 200)))
def test_no_core_is_lost_or_added_in_writing(ids: set[int]) -> None:
    ends = [[int(end) for end in run.split("-")] for run in core_list(ids).split(",") if run]
    assert [core for run in ends for core in range(run[0], run[-1] + 1)] == sorted(ids)


@pytest.mark.parametrize(
    ("name", "lnc", "message"),
    [
        ("trn2.48xlarge", 4, "Trainium2 has no logical NeuronCore configuration 4: use 1 or 2"),
        ("inf2.xlarge", 2, "Inferentia2 has no logical NeuronCore configuration 2: use 1"),
        ("trn1.2xlarge", 0, "Trainium1 has no logical NeuronCore configuration 0: use 1"),
    ],
)
def test_an_lnc_that_the_chip_lacks_is_answered_with_those_it_has(name: str, lnc: int, message: str) -> None:
    with pytest.raises(UnsupportedLogicalNeuronCore, match=f"^{message}$"):
        instance_type(name).cores(lnc)


@pytest.mark.parametrize(("name", "choice"), [("trn1.2xlarge", False), ("inf1.xlarge", False), ("trn3.48xlarge", True)])
def test_lnc_is_a_choice_from_trainium2_on(name: str, choice: bool) -> None:
    assert instance_type(name).chip.has_logical_neuron_cores is choice
