"""What a node is, from its NeuronNode or from flags."""

from typing import Any

import pytest
from neuron_device_model.faults import Fault
from neuron_device_model.partitions import UnknownDevice
from neuron_device_model.ultraserver import Seat
from neuron_dra_driver.errors import NodeError
from neuron_dra_driver.node import from_neuron_node, standalone


def neuron_node(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "worker-1"}, "spec": {"instanceType": "trn2.48xlarge", **spec}}


def test_an_object_of_an_earlier_operator_has_chips() -> None:
    node = from_neuron_node(neuron_node())
    assert list(node.devices) == [f"neuron-device-{n}" for n in range(16)]
    assert (node.partitions, node.devices_offered, node.resources, node.faults) == ("none", "chips", "DRA", ())
    assert node.offer.counter_sets == ()


def test_cores_are_offered_before_chips_with_the_counters_of_both() -> None:
    node = from_neuron_node(neuron_node(partitions="logical", devices="both", resources="DevicePlugin"))
    names = list(node.devices)
    assert names[:2] == ["neuron-core-0", "neuron-core-1"]
    assert names[-2:] == ["neuron-device-0", "neuron-node"]
    assert [counters["name"] for counters in node.offer.counter_sets] == [*(f"chip-{n}" for n in range(16)), "node"]
    assert (node.partitions, node.devices_offered, node.resources) == ("logical", "both", "DevicePlugin")


def test_faults_taint_what_they_hit() -> None:
    fault = {
        "name": "broken",
        "type": "NCUncorrectable",
        "chip": 3,
        "core": 1,
        "effect": "NoExecute",
        "message": "a test",
        "since": "2026-11-01T00:00:00Z",
    }
    node = from_neuron_node(neuron_node(partitions="physical", faults=[fault]))
    assert node.faults == (Fault(**fault),)
    tainted = [name for name, device in node.devices.items() if "taints" in device]
    assert tainted == ["neuron-core-12", "neuron-physical-core-25", "neuron-device-3"]
    del fault["chip"], fault["core"], fault["message"]
    node = from_neuron_node(neuron_node(faults=[fault]))
    assert all("taints" in device for device in node.devices.values())


def test_a_member_of_an_ultraserver_says_so_in_every_device() -> None:
    seat = {"id": "u5wy80u0o2saugxy", "size": 4, "node": 2}
    node = from_neuron_node(
        neuron_node(instanceType="trn2u.48xlarge", devices="both", ultraServer=seat, capacityBlockID="cr-1")
    )
    assert node.seat == Seat("u5wy80u0o2saugxy", 4, 2)
    for device in node.devices.values():
        assert device["attributes"]["capacityBlockId"] == device["attributes"]["ultraserverId"] == {"string": "cr-1"}
    alone = from_neuron_node(neuron_node())
    assert alone.seat is None
    assert not any("capacityBlockId" in device["attributes"] for device in alone.devices.values())


def test_every_name_has_a_meaning_whether_or_not_it_is_offered() -> None:
    node = standalone(name="worker-1", type_name="trn2.48xlarge")
    assert node.part("neuron-device-2").physical_cores == tuple(range(16, 24))
    assert node.part("neuron-core-9").physical_cores == (18, 19)
    with pytest.raises(UnknownDevice, match="has no device 'neuron-core-64'"):
        node.part("neuron-core-64")


def test_alone_it_is_what_the_flags_say() -> None:
    node = standalone(name="worker-1", type_name="inf2.48xlarge", partitions="logical", devices="both")
    assert len(node.devices) == 24 + 12 + 1


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"instanceType": "p5.48xlarge"}, "UnknownInstanceType"),
        ({"sdkVersion": "0.1"}, "UnknownSdkVersion"),
        ({"logicalNeuronCore": 3}, "InvalidLogicalNeuronCore"),
        ({"partitions": "halves"}, "InvalidOffer"),
        ({"devices": "none"}, "InvalidOffer"),
    ],
)
def test_what_cannot_be_offered_is_told(spec: dict[str, Any], reason: str) -> None:
    with pytest.raises(NodeError) as error:
        from_neuron_node(neuron_node(**spec))
    assert error.value.reason == reason
