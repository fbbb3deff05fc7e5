"""Which devices a fault hits, and the taints that come of several."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.catalog import instance_type
from neuron_device_model.faults import EFFECTS, FAULT_TYPES, Fault, faults_of, hits, taint, taints
from neuron_device_model.partitions import part

TRN2 = instance_type("trn2.48xlarge")
FAULT = Fault("f", "DMAError", 1, 3, "NoSchedule", "ring 7 stalled", "2026-01-02T00:00:00Z")
WHOLE_CHIP = replace(FAULT, name="chip", core=None)
WHOLE_NODE = replace(FAULT, name="node", chip=None, core=None)


def found(name: str, fault: Fault) -> bool:
    return hits(fault, part(name, TRN2, logical_neuron_core=2), TRN2)


@pytest.mark.parametrize(
    ("name", "core", "chip"),
    [
        ("neuron-physical-core-11", True, True),
        ("neuron-physical-core-10", False, True),
        ("neuron-physical-core-3", False, False),
        ("neuron-core-5", True, True),
        ("neuron-core-4", False, True),
        ("neuron-core-1", False, False),
        ("neuron-device-1", True, True),
        ("neuron-device-0", False, False),
        ("neuron-node", True, True),
    ],
)
def test_a_fault_hits_what_contains_the_broken_hardware(name: str, core: bool, chip: bool) -> None:
    assert (found(name, FAULT), found(name, WHOLE_CHIP), found(name, WHOLE_NODE)) == (core, chip, True)


def test_hardware_that_the_node_lacks_hits_nothing_but_its_chip_number() -> None:
    everything = part("neuron-node", TRN2, logical_neuron_core=2)
    for elsewhere in (replace(FAULT, chip=16), replace(FAULT, core=8), replace(WHOLE_CHIP, chip=16)):
        assert not hits(elsewhere, everything, TRN2)


def test_the_faults_of_a_device_keep_their_order() -> None:
    core = part("neuron-core-4", TRN2, logical_neuron_core=2)
    assert faults_of(core, [WHOLE_NODE, FAULT, WHOLE_CHIP], TRN2) == (WHOLE_NODE, WHOLE_CHIP)


def test_a_taint_says_what_and_since_when() -> None:
    assert taint(FAULT) == {
        "key": "neuron-sim.dev/unhealthy",
        "value": "DMAError",
        "effect": "NoSchedule",
        "timeAdded": "2026-01-02T00:00:00Z",
    }


def test_of_equal_taints_the_oldest_stands() -> None:
    older = replace(WHOLE_NODE, since="2026-01-01T00:00:00Z")
    assert taints([FAULT, older, WHOLE_CHIP]) == [taint(older)]


def test_types_and_effects_stand_beside_one_another() -> None:
    evicting, hang = replace(FAULT, effect="NoExecute"), replace(FAULT, type="Hang")
    assert taints([hang, FAULT, evicting]) == [taint(evicting), taint(FAULT), taint(hang)]


@given(st.permutations([replace(FAULT, type=kind, effect=effect) for kind, effect in product(FAULT_TYPES, EFFECTS)]))
def test_of_too_many_taints_the_mildest_are_left_out(faults: list[Fault]) -> None:
    found: list[dict[str, Any]] = taints(faults)
    assert [each["effect"] for each in found] == ["NoExecute"] * len(FAULT_TYPES) + ["NoSchedule"] * (
        16 - len(FAULT_TYPES)
    )
