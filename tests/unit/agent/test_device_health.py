"""Which devices a fault makes unhealthy, and what people read about it."""

from dataclasses import replace
from typing import Any

import pytest
from neuron_device_model.faults import Fault
from neuron_dra_driver.kubeletplugin import HealthStatus
from neuron_dra_driver.node import SimulatedNode, standalone
from neuron_dra_driver.records.holdings import HeldDevice
from neuron_dra_driver.reporting.device_health import device_health, explain, faults_of_held


def fault(**changes: Any) -> Fault:
    values = {"name": "x", "type": "HBMUncorrectable", "chip": 3, "core": None, "effect": "NoSchedule"}
    return Fault(**{**values, "message": "", "since": "2026-11-21T10:00:00Z", **changes})


@pytest.fixture(scope="module")
def cut() -> SimulatedNode:
    """16 chips with 8 physical cores each, at LNC 2, offered in every way."""
    return standalone(name="worker-1", type_name="trn2.48xlarge", partitions="physical", devices="both")


def unhealthy(node: SimulatedNode) -> set[str]:
    report = device_health(node)
    assert {pool for pool, _ in report} == {"worker-1"}
    assert {name for _, name in report} == set(node.devices), "every device is told of, the healthy ones too"
    return {name for (_, name), health in report.items() if health.status == HealthStatus.UNHEALTHY}


def test_without_faults_all_is_well(cut: SimulatedNode) -> None:
    assert unhealthy(cut) == set()
    assert {health.message for health in device_health(cut).values()} == {""}


@pytest.mark.parametrize(
    ("broken", "hit"),
    [
        (
            {"chip": 3},
            {f"neuron-core-{n}" for n in range(12, 16)}
            | {f"neuron-physical-core-{n}" for n in range(24, 32)}
            | {"neuron-device-3", "neuron-node"},
        ),
        (
            {"chip": 3, "core": 5},
            {"neuron-core-14", "neuron-physical-core-29", "neuron-device-3", "neuron-node"},
        ),
    ],
    ids=["a chip", "a core"],
)
def test_a_device_is_unhealthy_when_it_has_a_part_of_what_is_broken(
    cut: SimulatedNode, broken: dict[str, int], hit: set[str]
) -> None:
    assert unhealthy(replace(cut, faults=(fault(**broken),))) == hit


def test_a_fault_of_the_node_hits_everything(cut: SimulatedNode) -> None:
    assert unhealthy(replace(cut, faults=(fault(chip=None),))) == set(cut.devices)


def test_the_message_says_what_is_broken_who_says_so_and_what_to_do(cut: SimulatedNode) -> None:
    both = (fault(message="row 7 fails"), fault(name="y", type="DeviceLost", core=0, effect="NoExecute"))
    health = device_health(replace(cut, faults=both))
    assert health["worker-1", "neuron-core-13"].message == (
        "HBM_UNCORRECTABLE_ERROR (NeuronFault x): row 7 fails; delete the pod, so that its successor gets another "
        "device; kubectl delete neuronfault x heals it"
    )
    assert "; DeviceLost (NeuronFault y); pods that use it are evicted" in health["worker-1", "neuron-core-12"].message


def test_what_the_operator_writes_without_a_message_does_not_name_the_fault_twice() -> None:
    text = explain([fault(message="HBMUncorrectable on chip 3 of node n (NeuronFault x)", effect="None")])
    assert text.count("NeuronFault x") == 1
    assert "HBMUncorrectable on chip 3 of node n; the scheduler goes on giving it away" in text


@pytest.mark.parametrize(
    ("cores", "hit"),
    [
        (((3, -1),), True),
        (((2, -1),), False),
        (((3, 0b0010_0000),), True),
        (((3, 0b0001_1111),), False),
        (((2, -1), (3, 0b1100_0000)), False),
        ((), False),
    ],
    ids=["whole chip", "another chip", "the core", "its neighbours", "parts of two chips", "unknown"],
)
def test_what_a_claim_holds_counts_and_not_what_the_names_mean_by_now(
    cut: SimulatedNode, cores: tuple[tuple[int, int], ...], hit: bool
) -> None:
    node = replace(cut, faults=(fault(chip=3, core=5),))
    held = HeldDevice("r", "worker-1", "neuron-core-0", cores=cores)
    assert bool(faults_of_held(held, node)) == hit
    assert not faults_of_held(held, cut)
