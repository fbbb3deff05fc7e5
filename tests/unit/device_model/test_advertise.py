"""The devices that a node offers carry AWS's attributes, where AWS has them and nowhere else."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.advertise import (
    chip_devices,
    device_group_id,
    device_index,
    device_name,
)
from neuron_device_model.catalog import DEFAULT_SDK_VERSION, InstanceType, instance_type, instance_types, sdk_release

# k8s.io/api/resource/v1 types.go
MAX_ATTRIBUTES = 32

SDK = sdk_release(DEFAULT_SDK_VERSION)
LAYERS = ["nn-11111111111111111", "nn-22222222222222222", "nn-33333333333333333"]
GRID = {"topology_x", "topology_y", "topology4_id", "topology8_id"}
GROUPS = {f"resource.aws.com/devicegroup{size}_id" for size in (1, 4, 8, 16)}

# Computed from AWS's maps with AWS's algorithm; the trn2 groups of four, and three of trn1's, were also read off
# real nodes. Groups of 4, of 8, of 16.
HASHES = {
    "trn1.32xlarge": (
        "88a3c6ad1661fe1d 69b2225fd72a59dd e3c29faa0cd11323 178a9e264a26793e",
        "86c451036f622685 aa86c05423d6e8cd",
        "fb838249c99a6341",
    ),
    "trn1n.32xlarge": (
        "f9415ac86580cd2a 81d377c56bbb18dd e367b751fc858d72 6b9b077320083e11",
        "25ab6fa8d56db17d feac12f490fb3cba",
        "9ea13cbe1ff23763",
    ),
    "trn2.48xlarge": (
        "13713e551cd37c19 671622785349fddf 237e3ef7b968b4d3 b3d6ce1919d29f8f",
        "3593812b8066a078 614e16dab9ba2f1f",
        "821d14afaf11327d",
    ),
    "trn3.48xlarge": (
        "68ac040ea32655a7 1c060eef5f3a4fe1 68e7529909eadc38 11626cfcde6dcac3",
        "bafc439bf9664feb 629b2570d9887aaf",
        "31980acd145f7025",
    ),
    "trn3-dev0.48xlarge": (
        "68ac040ea32655a7 11626cfcde6dcac3 1c060eef5f3a4fe1 68e7529909eadc38",
        "e24e6d445a226240 a6e1fae95cf7af58",
        "31980acd145f7025",
    ),
}


def attributes(kind: InstanceType, index: int = 0, **changes: object) -> dict[str, dict[str, object]]:
    arguments = {"sdk": SDK, "dra_driver_version": "0.1.0", "network_nodes": LAYERS, **changes}
    found: dict[str, dict[str, object]] = chip_devices(kind, **arguments)[index]["attributes"]  # type: ignore[arg-type]
    return found


def test_a_trn2_chip_has_exactly_the_attributes_of_a_real_one() -> None:
    assert attributes(instance_type("trn2.48xlarge"), 6) == {
        "deviceId": {"int": 6},
        "instanceType": {"string": "trn2.48xlarge"},
        "neuronDriverVersion": {"string": "2.30.2.0"},
        "draDriverVersion": {"version": "0.1.0"},
        "resourceType": {"string": "neuron_device"},
        "networkNodeLayer1": {"string": LAYERS[0]},
        "networkNodeLayer2": {"string": LAYERS[1]},
        "networkNodeLayer3": {"string": LAYERS[2]},
        "topology_x": {"int": 1},
        "topology_y": {"int": 2},
        "topology4_id": {"int": 1},
        "topology8_id": {"int": 0},
        "resource.aws.com/devicegroup1_id": {"string": "0000:56:00.0"},
        "resource.aws.com/devicegroup4_id": {"string": "671622785349fddf"},
        "resource.aws.com/devicegroup8_id": {"string": "3593812b8066a078"},
        "resource.aws.com/devicegroup16_id": {"string": "821d14afaf11327d"},
        "neuron-sim.dev/simulated": {"bool": True},
    }


@pytest.mark.parametrize("name", HASHES)
def test_device_group_ids_are_awss_bit_for_bit(name: str) -> None:
    kind = instance_type(name)
    for size, expected in zip((4, 8, 16), HASHES[name], strict=True):
        found = [device_group_id(kind, index, size) for index in range(16)]
        assert found == [block for block in expected.split() for _ in range(size)]


@pytest.mark.parametrize("kind", instance_types(), ids=lambda kind: kind.name)
def test_grid_and_group_attributes_stand_only_where_aws_has_them(kind: InstanceType) -> None:
    found = set(attributes(kind))
    grid = kind.name in {"trn1.32xlarge", "trn1n.32xlarge", "trn2.48xlarge", "trn2n.48xlarge"}
    # aws-neuron/connected-device-maps-over-efa-for-neuron, lookup/config/efa-enabled-instances.json
    efa = kind.name in {
        "trn1.32xlarge", "trn1n.32xlarge", "trn2.48xlarge", "trn2u.48xlarge", "trn3.48xlarge", "trn3p.48xlarge",
        "trn3pd98.48xlarge", "trn3s.48xlarge", "trn3-dev0.48xlarge", "trn3-dev1.48xlarge",
    }  # fmt: skip
    assert found & GRID == (GRID if grid else set())
    assert found & GROUPS == (GROUPS if efa else set())


@pytest.mark.parametrize("kind", instance_types(), ids=lambda kind: kind.name)
def test_devices_are_plain_json_named_in_order_and_within_limits(kind: InstanceType) -> None:
    devices = chip_devices(kind, sdk=SDK, dra_driver_version="0.1.0", network_nodes=LAYERS)
    assert [device["name"] for device in devices] == [f"neuron-device-{index}" for index in range(kind.chips)]
    assert json.loads(json.dumps(devices)) == devices
    for device in devices:
        assert set(device) == {"name", "attributes"}
        assert len(device["attributes"]) <= MAX_ATTRIBUTES
        assert all(len(value) == 1 for value in device["attributes"].values())


def test_only_the_network_layers_given_are_published() -> None:
    found = attributes(instance_type("trn2.48xlarge"), network_nodes=LAYERS[:1])
    assert found["networkNodeLayer1"] == {"string": LAYERS[0]}
    assert "networkNodeLayer2" not in found


def test_the_driver_version_of_the_node_wins_over_the_sdks() -> None:
    found = attributes(instance_type("trn2.48xlarge"), driver_version="2.25.4.0")
    assert found["neuronDriverVersion"] == {"string": "2.25.4.0"}


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.02.3", "2.30.2.0", "", "1.2.3\n"])
def test_a_dra_driver_version_that_the_api_server_would_refuse_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match="must be a semantic version"):
        attributes(instance_type("inf2.xlarge"), dra_driver_version=version)


@pytest.mark.parametrize("version", ["0.1.0", "1.2.3-rc.1", "1.2.3+build.5", "1.0.0-0a"])
def test_semantic_versions_are_published_as_they_are(version: str) -> None:
    found = attributes(instance_type("inf2.xlarge"), dra_driver_version=version)
    assert found["draDriverVersion"] == {"version": version}


@pytest.mark.parametrize("node", ["", "n" * 65])
def test_a_value_that_the_api_server_would_refuse_is_refused(node: str) -> None:
    with pytest.raises(ValueError, match="attribute networkNodeLayer1 needs 1 to 64 characters"):
        attributes(instance_type("inf2.xlarge"), network_nodes=[node])


def test_a_fourth_network_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 3 network nodes, not 4"):
        attributes(instance_type("inf2.xlarge"), network_nodes=[*LAYERS, "nn-4"])


def test_a_group_with_one_efa_device_missing_is_made_of_the_rest() -> None:
    kind = instance_type("trn2.48xlarge")
    devices = tuple(replace(slot, efa_bdf=None) if slot.index == 0 else slot for slot in kind.devices)
    changed = replace(kind, devices=devices)
    assert device_group_id(changed, 0, 1) is None
    assert device_group_id(changed, 0, 4) != device_group_id(kind, 0, 4)


@given(st.integers(0, 10**6))
def test_names_and_indices_are_each_others_inverse(index: int) -> None:
    assert device_index(device_name(index)) == index


@pytest.mark.parametrize(
    "name",
    ["", "neurondevice0", "neuron-device-", "neuron-device-01", "neuron-device--1", "gpu-0", "neuron-device-0\n"],
)
def test_another_name_is_no_neuron_device(name: str) -> None:
    with pytest.raises(ValueError, match="is not a Neuron device: names are neuron-device-0"):
        device_index(name)


def test_an_index_is_not_negative() -> None:
    with pytest.raises(ValueError, match="counts from 0, not -1"):
        device_name(-1)
