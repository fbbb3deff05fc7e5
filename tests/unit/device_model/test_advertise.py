"""What a node offers carries AWS's attributes where AWS has them and nowhere else, and fits into slices."""

import json
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from neuron_device_model.advertise import Offer, device_group_id, offer
from neuron_device_model.catalog import DEFAULT_SDK_VERSION, InstanceType, instance_type, instance_types, sdk_release
from neuron_device_model.faults import EFFECTS, FAULT_TYPES, Fault
from neuron_device_model.partitions import OFFERED_DEVICES, PARTITIONS

# k8s.io/api/resource/v1 types.go
MAX_DEVICES_WITH_COUNTERS_OR_TAINTS = 64
MAX_ATTRIBUTES_AND_CAPACITIES = 32
MAX_NAME = 32
MAX_COUNTER_SETS, MAX_COUNTERS = 8, 32
MAX_SETS_CONSUMED = 2
MAX_TAINTS = 16

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


def node_offer(kind: InstanceType, **changes: Any) -> Offer:
    arguments = {
        "sdk": SDK,
        "dra_driver_version": "0.1.0",
        "network_nodes": LAYERS,
        "logical_neuron_core": kind.chip.default_logical_neuron_core,
        **changes,
    }
    return offer(kind, **arguments)


def device(kind: InstanceType, name: str = "neuron-device-0", **changes: Any) -> dict[str, Any]:
    [found] = [device for device in node_offer(kind, **changes).devices if device["name"] == name]
    return found


def attributes(kind: InstanceType, index: int = 0, **changes: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = device(kind, f"neuron-device-{index}", **changes)["attributes"]
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


def test_chips_alone_are_devices_as_awss_and_nothing_else() -> None:
    found = node_offer(instance_type("trn2.48xlarge"))
    assert [set(device) for device in found.devices] == [{"name", "attributes"}] * 16
    assert found.counter_sets == ()


def test_a_core_has_what_its_chip_has_and_says_which_core_it_is() -> None:
    kind = instance_type("trn2.48xlarge")
    core = device(kind, "neuron-core-26", partitions="logical")
    assert core["attributes"] == attributes(kind, 6) | {
        "resourceType": {"string": "neuron_core"},
        "neuron-sim.dev/partition": {"string": "logical"},
        "neuron-sim.dev/core": {"int": 2},
        "neuron-sim.dev/logicalNeuronCore": {"int": 2},
    }
    assert core["capacity"] == {"neuron-sim.dev/memory": {"value": "24Gi"}}
    physical = device(kind, "neuron-physical-core-52", partitions="physical")
    assert physical["attributes"] == attributes(kind, 6) | {
        "resourceType": {"string": "neuron_core"},
        "neuron-sim.dev/partition": {"string": "physical"},
        "neuron-sim.dev/core": {"int": 4},
        "neuron-sim.dev/logicalNeuronCore": {"int": 1},
    }
    assert physical["capacity"] == {"neuron-sim.dev/memory": {"value": "12Gi"}}


@pytest.mark.parametrize(
    ("name", "lnc", "memory"),
    [("inf1.xlarge", 1, "2Gi"), ("trn1.2xlarge", 1, "16Gi"), ("trn2.3xlarge", 1, "12Gi"), ("trn3.48xlarge", 2, "36Gi")],
)
def test_the_memory_of_a_core_follows_the_chip_and_lnc(name: str, lnc: int, memory: str) -> None:
    core = device(instance_type(name), "neuron-core-1", logical_neuron_core=lnc, partitions="logical")
    assert core["capacity"] == {"neuron-sim.dev/memory": {"value": memory}}
    assert core["attributes"]["neuron-sim.dev/logicalNeuronCore"] == {"int": lnc}


def test_memory_that_is_no_whole_number_of_gib_is_written_in_the_next_unit() -> None:
    kind = instance_type("inf2.xlarge")
    odd = replace(kind, chip=replace(kind.chip, memory_bytes=3 << 30))
    assert device(odd, "neuron-core-0", partitions="logical")["capacity"] == {
        "neuron-sim.dev/memory": {"value": "1536Mi"}
    }


def test_the_whole_node_says_nothing_that_is_true_of_one_chip_only() -> None:
    assert device(instance_type("trn2u.48xlarge"), "neuron-node", devices="both")["attributes"] == {
        "instanceType": {"string": "trn2u.48xlarge"},
        "neuronDriverVersion": {"string": "2.30.2.0"},
        "draDriverVersion": {"version": "0.1.0"},
        "resourceType": {"string": "neuron_node"},
        "networkNodeLayer1": {"string": LAYERS[0]},
        "networkNodeLayer2": {"string": LAYERS[1]},
        "networkNodeLayer3": {"string": LAYERS[2]},
        "neuron-sim.dev/simulated": {"bool": True},
    }


def test_devices_draw_their_physical_cores() -> None:
    found = node_offer(instance_type("trn2u.48xlarge"), partitions="physical", devices="both")
    draws = {device["name"]: device["consumesCounters"] for device in found.devices}

    def chip_set(chip: int, cores: range) -> dict[str, Any]:
        return {"counterSet": f"chip-{chip}", "counters": {f"core-{core}": {"value": "1"} for core in cores}}

    def node_set(chips: range, value: int) -> dict[str, Any]:
        return {"counterSet": "node", "counters": {f"chip-{chip}": {"value": str(value)} for chip in chips}}

    assert draws["neuron-core-5"] == [chip_set(1, range(2, 4)), node_set(range(1, 2), 2)]
    assert draws["neuron-physical-core-11"] == [chip_set(1, range(3, 4)), node_set(range(1, 2), 1)]
    assert draws["neuron-device-1"] == [chip_set(1, range(8)), node_set(range(1, 2), 8)]
    assert draws["neuron-node"] == [node_set(range(16), 8)]
    assert found.counter_sets == (
        *({"name": f"chip-{i}", "counters": chip_set(i, range(8))["counters"]} for i in range(16)),
        {"name": "node", "counters": node_set(range(16), 8)["counters"]},
    )


@pytest.mark.parametrize(
    ("partitions", "devices", "sets"),
    [
        ("none", "chips", []),
        ("none", "node", []),
        ("none", "both", ["node"]),
        ("logical", "chips", ["chip-0"]),
        ("logical", "node", ["node"]),
        ("logical", "both", ["chip-0", "node"]),
        ("physical", "chips", ["chip-0"]),
        ("physical", "node", ["chip-0", "node"]),
    ],
)
def test_there_are_counters_only_where_devices_overlap(partitions: str, devices: str, sets: list[str]) -> None:
    found = node_offer(instance_type("trn2.3xlarge"), partitions=partitions, devices=devices)
    assert [counters["name"] for counters in found.counter_sets] == sets


def all_faults(kind: InstanceType) -> list[Fault]:
    """Every type with every effect, on the node, on a chip and on a core of it."""
    return [
        Fault(f"f{number}", fault, chip, core, effect, "", f"2026-01-01T00:00:{number % 60:02}Z")
        for number, (fault, effect, (chip, core)) in enumerate(
            product(FAULT_TYPES, EFFECTS, [(None, None), (kind.chips - 1, None), (0, 0)])
        )
    ]


@pytest.mark.parametrize("kind", instance_types(), ids=lambda kind: kind.name)
def test_every_offer_is_plain_json_within_the_limits_of_slices(kind: InstanceType) -> None:
    for lnc, partitions, devices in product(kind.chip.logical_neuron_core_values, PARTITIONS, OFFERED_DEVICES):
        choice: dict[str, Any] = {"logical_neuron_core": lnc, "partitions": partitions, "devices": devices}
        found = node_offer(kind, **choice, faults=all_faults(kind))
        pages = found.pages()
        plain = [[list(page.devices), list(page.counter_sets)] for page in pages]
        assert json.loads(json.dumps(plain)) == plain
        assert tuple(device for page in pages for device in page.devices) == found.devices
        assert tuple(counters for page in pages for counters in page.counter_sets) == found.counter_sets
        kinds = ["devices" if page.devices else "counters" for page in pages]
        assert kinds == sorted(kinds, reverse=True)
        for page in pages:
            assert bool(page.devices) != bool(page.counter_sets)
            assert len(page.counter_sets) <= MAX_COUNTER_SETS
            assert len(page.devices) <= MAX_DEVICES_WITH_COUNTERS_OR_TAINTS
        names = [device["name"] for device in found.devices]
        assert len(set(names)) == len(names)
        counters = {each["name"]: each["counters"] for each in found.counter_sets}
        assert len(counters) == len(found.counter_sets)
        assert all(0 < len(each) <= MAX_COUNTERS for each in counters.values())
        for device in found.devices:
            assert len(device["attributes"]) + len(device.get("capacity", ())) <= MAX_ATTRIBUTES_AND_CAPACITIES
            assert all(len(value) == 1 for value in device["attributes"].values())
            assert all(len(name.rpartition("/")[2]) <= MAX_NAME for name in device["attributes"])
            assert 0 < len(device["taints"]) <= MAX_TAINTS
            consumed = device.get("consumesCounters", [])
            assert len({each["counterSet"] for each in consumed}) == len(consumed) <= MAX_SETS_CONSUMED
            for each in consumed:
                assert 0 < len(each["counters"]) <= MAX_COUNTERS
                for name, taken in each["counters"].items():
                    assert 0 < int(taken["value"]) <= int(counters[each["counterSet"]][name]["value"])
        # A fault must not move devices from slice to slice.
        healthy = [len(page.devices) for page in node_offer(kind, **choice).pages()]
        assert healthy == [len(page.devices) for page in pages]


def test_a_fully_cut_trn2_takes_four_slices_of_devices_and_two_of_counters() -> None:
    pages = node_offer(instance_type("trn2.48xlarge"), partitions="physical").pages()
    assert [(len(page.devices), len(page.counter_sets)) for page in pages] == [
        (64, 0), (64, 0), (64, 0), (16, 0), (0, 8), (0, 8),
    ]  # fmt: skip


def test_a_fault_taints_every_device_that_contains_it_and_no_other() -> None:
    fault = Fault("hbm", "HBMUncorrectable", 1, 3, "NoSchedule", "bank 1", "2026-01-01T00:00:00Z")
    found = node_offer(instance_type("trn2u.48xlarge"), partitions="physical", devices="both", faults=[fault])
    tainted = {device["name"]: device["taints"] for device in found.devices if "taints" in device}
    assert set(tainted) == {"neuron-core-5", "neuron-physical-core-11", "neuron-device-1", "neuron-node"}
    assert tainted["neuron-core-5"] == [
        {
            "key": "neuron-sim.dev/unhealthy",
            "value": "HBMUncorrectable",
            "effect": "NoSchedule",
            "timeAdded": "2026-01-01T00:00:00Z",
        }
    ]


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


@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize(("devices", "same_as"), [("chips", "chips"), ("both", "chips"), ("node", "node")])
def test_without_counters_it_is_the_offer_of_a_node_that_is_not_cut(
    partitions: str, devices: str, same_as: str
) -> None:
    """For an API server that drops counters: nothing that overlaps may be offered there."""
    kind = instance_type("trn2u.48xlarge")
    left = node_offer(kind, partitions=partitions, devices=devices).without_counters()
    assert left == node_offer(kind, partitions="none", devices=same_as)
