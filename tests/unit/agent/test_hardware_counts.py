"""Counters of hardware events: exact, and never less than somebody has seen."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.catalog import instance_type
from neuron_device_model.faults import ECC_EVENTS, FAULT_KINDS, FAULT_TYPES, Fault, lost_chips
from neuron_device_model.view import GivenChip, container_view
from neuron_dra_driver.hardware.counts import Counts
from neuron_dra_driver.hardware.effects import begin, cores_hit, ecc, told
from neuron_dra_driver.hardware.service import TOLD, Hardware
from neuron_dra_driver.node import SimulatedNode, standalone

TRN2 = instance_type("trn2.48xlarge")
FAULT = Fault("f", "HBMUncorrectable", 3, None, "NoSchedule", "", "2026-01-02T00:00:00Z")
BEGIN = begin(FAULT)


def view(node: SimulatedNode, *chips: GivenChip) -> Any:
    return container_view(
        node.instance_type,
        given=chips,
        first_index=0,
        logical_neuron_core=2,
        instance_id=node.instance_id,
        sdk=node.sdk,
    )


@pytest.fixture(scope="module")
def whole() -> SimulatedNode:
    return standalone(name="n", type_name="trn2.48xlarge")


# --- counters

looks = st.lists(
    st.tuples(st.sampled_from(["active", "over", "restart"]), st.sampled_from("ab"), st.integers(0, 50)), max_size=30
)


@given(looks)
def test_no_counter_ever_goes_back_whatever_comes_and_goes_and_restarts(steps: list[tuple[str, str, int]]) -> None:
    counts, seen = Counts(), 0
    active: dict[str, dict[int, dict[str, int]]] = {}
    for what, cause, number in steps:
        if what == "restart":
            counts = Counts(json.loads(json.dumps(counts.as_record())))
        elif what == "over":
            active.pop(cause, None)
        else:
            active[cause] = {0: {"mem_ecc_corrected": number}}  # less than before, where the clock jumped back
        counts.account(active)
        total = counts.totals().get(0, {}).get("mem_ecc_corrected", 0)
        assert total >= seen
        seen = total


def test_several_faults_of_a_chip_add_up_and_stay_when_they_are_over() -> None:
    counts = Counts()
    assert counts.account({"a": {0: {"e": 2}}, "b": {0: {"e": 3}, 1: {"e": 1}}})
    assert not counts.account({"a": {0: {"e": 2}}, "b": {0: {"e": 3}, 1: {"e": 1}}}), "nothing new"
    assert counts.account({"b": {0: {"e": 4}}})
    assert counts.totals() == {0: {"e": 6}, 1: {"e": 1}}
    assert counts.account({"a": {0: {"e": 1}}}), "the same fault again is another one"
    assert counts.totals()[0] == {"e": 7}


@pytest.mark.parametrize(
    ("fault", "after", "chips", "count"),
    [
        (FAULT, 3600, [3], 1),
        (replace(FAULT, chip=None), 0, list(range(16)), 1),
        (replace(FAULT, type="HBMCorrectable"), 60, [3], 7),
        (replace(FAULT, type="SRAMCorrectable", events_per_minute=120), 30, [3], 61),
        (replace(FAULT, type="HBMCorrectable"), -5, [3], 1),
    ],
)
def test_what_a_fault_counts(fault: Fault, after: float, chips: list[int], count: int) -> None:
    found = ecc(fault, TRN2, now=BEGIN + after)
    assert sorted(found) == chips
    assert {value for events in found.values() for value in events.values()} == {count}


@pytest.mark.parametrize("kind", FAULT_TYPES)
def test_only_known_counters_go_up(kind: str) -> None:
    assert set(FAULT_KINDS[kind].ecc) <= set(ECC_EVENTS)
    assert FAULT_KINDS[kind].effect == ("NoSchedule" if FAULT_KINDS[kind].breaks else "None")


# --- what containers are told


@pytest.mark.parametrize(
    ("fault", "hit"),
    [
        (FAULT, {0: [0, 1, 2, 3]}),
        (replace(FAULT, core=5), {0: [2]}),
        (replace(FAULT, chip=None), {0: [0, 1, 2, 3], 1: [5, 6]}),
        (replace(FAULT, chip=9), {}),
        (replace(FAULT, chip=7, core=1), {}),
        (replace(FAULT, type="LinkDown", peer=7), {0: [0, 1, 2, 3], 1: [5, 6]}),
        (replace(FAULT, type="LinkDown", peer=2), {}),
        (replace(FAULT, type="EFADown", chip=None), {}),
    ],
)
def test_a_container_is_told_of_its_own_cores_by_its_own_numbers(
    whole: SimulatedNode, fault: Fault, hit: dict[int, list[int]]
) -> None:
    given_chips = view(whole, GivenChip(3), GivenChip(7, cores=(1, 2)))
    assert cores_hit(fault, given_chips, physical_cores=8) == hit
    entries = told(given_chips, [fault], physical_cores=8)["faults"]
    cores = {core for entry in entries for core in entry["cores"]}
    assert cores == {str(core) for found in hit.values() for core in found}


def test_the_words_name_device_and_core_in_it(whole: SimulatedNode) -> None:
    (entry,) = told(view(whole, GivenChip(1), GivenChip(3)), [replace(FAULT, core=5)], physical_cores=8)["faults"]
    assert entry["cores"] == {"6": [1, 2]}


def test_lost_are_the_chips_that_the_driver_shows_no_more() -> None:
    gone = replace(FAULT, type="DeviceLost")
    assert lost_chips([FAULT, gone], TRN2) == {3}
    assert len(lost_chips([replace(FAULT, type="DriverFailed", chip=None)], TRN2)) == 16


# --- kept and told


def test_counters_are_kept_for_the_next_agent_and_told_by_the_views_numbers(
    whole: SimulatedNode, tmp_path: Path
) -> None:
    nodes = [replace(whole, faults=(FAULT,))]
    first = Hardware(tmp_path, node=lambda: nodes[0])
    assert first.counters() == {3: {"mem_ecc_uncorrected": 1}}
    mine = view(whole, GivenChip(2), GivenChip(3))
    assert first.of_view(mine) == {"0": {}, "1": {"mem_ecc_uncorrected": 1}}
    nodes[0] = replace(whole, faults=(replace(FAULT, name="g", type="DeviceLost"),))
    second = Hardware(tmp_path, node=lambda: nodes[0])
    assert second.counters() == {3: {"mem_ecc_uncorrected": 1}}
    assert second.of_view(mine) == {"0": {}}, "what is lost tells nothing"
    second.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_or_kept_is_no_reason_to_fail(whole: SimulatedNode, tmp_path: Path) -> None:
    (tmp_path / "hardware-counts.json").write_text('{"over": 3}')
    broken = replace(whole, faults=(FAULT,))
    assert Hardware(tmp_path, node=lambda: broken).counters() == {3: {"mem_ecc_uncorrected": 1}}
    assert Hardware(tmp_path / "no" / "folder", node=lambda: broken).counters() == {3: {"mem_ecc_uncorrected": 1}}


def test_the_file_for_containers_comes_and_goes_with_the_faults(whole: SimulatedNode, tmp_path: Path) -> None:
    nodes = [replace(whole, faults=(FAULT,))]
    hardware = Hardware(tmp_path, node=lambda: nodes[0])
    hardware.tell(tmp_path, view(whole, GivenChip(3)))
    (entry,) = json.loads((tmp_path / TOLD).read_text())["faults"]
    assert (entry["name"], entry["status"], entry["at_open"]) == ("f", 1201, False)
    nodes[0] = whole
    hardware.tell(tmp_path, view(whole, GivenChip(3)))
    assert not (tmp_path / TOLD).exists()
