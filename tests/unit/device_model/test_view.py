"""The view of a container: renumbered devices, host neighbours, everything the tools print."""

import json

import pytest
from neuron_device_model.catalog import InstanceType, instance_type, instance_types, sdk_release
from neuron_device_model.cores import UnsupportedLogicalNeuronCore
from neuron_device_model.view import GivenChip, View, container_view

SDK = sdk_release("2.32.0")


def view(name: str = "trn2.48xlarge", *given: GivenChip, first_index: int = 0, lnc: int = 2) -> View:
    return container_view(
        instance_type(name),
        given=given or [GivenChip(13)],
        first_index=first_index,
        logical_neuron_core=lnc,
        instance_id="i-0123456789abcdef0",
        sdk=SDK,
    )


def test_one_device_of_a_trn2_shows_what_a_real_container_shows() -> None:
    assert view() == {
        "schema": 1,
        "simulated": True,
        "instance_type": "trn2.48xlarge",
        "instance_id": "i-0123456789abcdef0",
        "network_nodes": [],
        "logical_neuroncore_config": 2,
        "sdk_version": "2.32.0",
        "tools_version": "2.32.28.0",
        "driver_version": "2.30.2.0",
        "runtime_version": "2.34.10.0",
        "host_device_count": 16,
        "topology": {"kind": "torus2d", "shape": [4, 4]},
        "devices": [
            {
                "index": 0,
                "host_index": 13,
                "core_count": 4,
                "core_ids": [0, 1, 2, 3],
                "memory_bytes": 103079215104,
                "connected": [12, 1, 9, 14],
                "pci_bdf": "0000:e1:00.0",
                "cpu_affinity": "48-95,144-191",
                "numa_node": "1",
            }
        ],
    }


def test_devices_and_cores_run_on_from_the_first_index() -> None:
    devices = view("trn2.48xlarge", GivenChip(3), GivenChip(9), first_index=2)["devices"]
    assert [(device["index"], device["host_index"]) for device in devices] == [(2, 3), (3, 9)]
    assert [device["core_ids"] for device in devices] == [[8, 9, 10, 11], [12, 13, 14, 15]]


def test_lnc_1_shows_physical_cores() -> None:
    [device] = view(lnc=1)["devices"]
    assert (device["core_count"], device["core_ids"]) == (8, list(range(8)))


def test_part_of_a_chip_shows_its_cores_and_their_memory_and_no_more() -> None:
    [device] = view("trn2.48xlarge", GivenChip(13, (2, 3)))["devices"]
    assert device["core_count"] == 2
    assert device["core_ids"] == [2, 3]
    assert device["memory_bytes"] == 48 << 30


def test_cores_of_two_chips_keep_their_places_behind_each_chip() -> None:
    devices = view("trn2.48xlarge", GivenChip(3, (3,)), GivenChip(7, (1, 0)), first_index=1)["devices"]
    assert [device["core_ids"] for device in devices] == [[7], [8, 9]]


def test_two_physical_cores_of_a_bank_have_half_of_it_each() -> None:
    [device] = view("trn2.48xlarge", GivenChip(0, (5,)), lnc=1)["devices"]
    assert (device["core_count"], device["core_ids"], device["memory_bytes"]) == (1, [5], 12 << 30)


@pytest.mark.parametrize("kind", instance_types(), ids=lambda kind: kind.name)
def test_all_cores_one_by_one_are_the_whole_chip(kind: InstanceType) -> None:
    for lnc in kind.chip.logical_neuron_core_values:
        cores = tuple(range(kind.chip.physical_cores // lnc))
        assert view(kind.name, GivenChip(0, cores), lnc=lnc) == view(kind.name, GivenChip(0), lnc=lnc)


@pytest.mark.parametrize("cores", [(), (4,), (-1,), (1, 1), (0, 1, 2, 3, 4)])
def test_cores_that_the_chip_lacks_are_refused(cores: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"are not cores of a Trainium2 with .* 2: give one or more of 0 to 3, each"):
        view("trn2.48xlarge", GivenChip(0, cores))


@pytest.mark.parametrize("name", ["inf2.xlarge", "trn1.2xlarge", "inf1.2xlarge"])
def test_a_single_chip_without_lnc_has_neither_neighbours_nor_config(name: str) -> None:
    found = view(name, GivenChip(0), lnc=1)
    assert found["logical_neuroncore_config"] is None
    assert found["topology"] == {"kind": "single", "shape": [1]}
    assert found["devices"][0]["connected"] is None
    assert found["devices"][0]["numa_node"] == "-1"


def test_the_document_is_plain_json() -> None:
    found = view("trn2.48xlarge", *map(GivenChip, range(15)), GivenChip(15, (0, 2)))
    assert json.loads(json.dumps(found)) == found


def test_the_driver_version_of_the_node_wins_over_the_sdks() -> None:
    found = container_view(
        instance_type("inf2.xlarge"), given=[GivenChip(0)], first_index=0, logical_neuron_core=1, instance_id="i-0",
        sdk=SDK, driver_version="2.25.4.0",
    )  # fmt: skip
    assert found["driver_version"] == "2.25.4.0"


@pytest.mark.parametrize("device", [16, -1])
def test_a_device_that_the_host_lacks_is_refused(device: int) -> None:
    with pytest.raises(ValueError, match=f"trn2.48xlarge has no device {device}: it has 16, from 0"):
        view("trn2.48xlarge", GivenChip(device))


def test_an_lnc_that_the_chip_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedLogicalNeuronCore):
        view("inf2.xlarge", GivenChip(0), lnc=2)
