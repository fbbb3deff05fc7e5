"""EFA cards: which there are, and that a claim's constraint holds them together with the chips beside them."""

import re
from collections import Counter

import pytest
from neuron_device_model.advertise import MAX_DEVICES_PER_SLICE, MAX_VALUE_LENGTH, offer
from neuron_device_model.catalog import DEFAULT_SDK_VERSION, instance_type, instance_types, sdk_release
from neuron_device_model.efa import efa_devices, offered
from neuron_device_model.faults import Fault

WITH_EFA = [kind for kind in instance_types() if efa_devices(kind)]
GROUPS = tuple(f"resource.aws.com/devicegroup{size}_id" for size in (1, 4, 8, 16))


def named(kind_name, name):
    (found,) = [card for card in offered(instance_type(kind_name)) if card["name"] == name]
    return found["attributes"]


def groups(attributes):
    return {name: attributes[name]["string"] for name in GROUPS}


def chip_groups(kind):
    chips = offer(
        kind,
        sdk=sdk_release(DEFAULT_SDK_VERSION),
        dra_driver_version="1.0.0",
        logical_neuron_core=kind.chip.default_logical_neuron_core,
    ).devices
    return {chip["attributes"]["deviceId"]["int"]: groups(chip["attributes"]) for chip in chips}


def fault(**where):
    place = {"chip": None, "core": None, **where}
    return Fault(name="f", type="DeviceLost", effect="NoExecute", message="", since="2026-01-01T00:00:00Z", **place)


def test_a_card_of_trn1_is_what_dranet_shows():
    attributes = named("trn1.32xlarge", "pci-0000-10-19-0")
    assert attributes == {
        "dra.net/numaNode": {"int": 0},
        "dra.net/pciAddress": {"string": "0000:10:19.0"},
        "dra.net/pciDevice": {"string": "Elastic Fabric Adapter (EFA)"},
        "dra.net/pciVendor": {"string": "Amazon.com, Inc."},
        "dra.net/rdma": {"bool": True},
        "dra.net/rdmaDevice": {"string": "rdmap16s25"},
        "resource.aws.com/devicegroup1_id": {"string": "0000:10:19.0"},
        "resource.aws.com/devicegroup4_id": {"string": "178a9e264a26793e"},
        "resource.aws.com/devicegroup8_id": {"string": "aa86c05423d6e8cd"},
        "resource.aws.com/devicegroup16_id": {"string": "fb838249c99a6341"},
        "neuron-sim.dev/simulated": {"bool": True},
    }


def test_trn1_has_four_cards_on_each_numa_node():
    numa = [card["attributes"]["dra.net/numaNode"]["int"] for card in offered(instance_type("trn1.32xlarge"))]
    assert sorted(numa) == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("name", "count"), [("trn1.32xlarge", 8), ("trn1n.32xlarge", 16), ("trn2.48xlarge", 16), ("trn2u.48xlarge", 16)]
)
def test_there_are_as_many_cards_as_interfaces(name, count):
    kind = instance_type(name)
    assert len(efa_devices(kind)) == kind.efa_count == count


@pytest.mark.parametrize("name", ["inf1.24xlarge", "inf2.48xlarge", "trn1.2xlarge", "trn2.3xlarge"])
def test_types_that_awss_map_does_not_list_have_none(name):
    assert offered(instance_type(name)) == ()


@pytest.mark.parametrize("kind", WITH_EFA, ids=lambda kind: kind.name)
def test_each_chip_shares_all_its_groups_with_its_card_and_with_no_other(kind):
    cards = {card["name"]: groups(card["attributes"]) for card in offered(kind)}
    chips = chip_groups(kind)
    for card in efa_devices(kind):
        for chip in card.chips:
            assert chips[chip] == cards[card.name]
    pairs = [(chip, name) for chip in chips for name in cards if chips[chip][GROUPS[0]] == cards[name][GROUPS[0]]]
    assert len(pairs) == kind.chips, "by devicegroup1_id a chip finds one card"


@pytest.mark.parametrize("kind", WITH_EFA, ids=lambda kind: kind.name)
@pytest.mark.parametrize("size", [1, 4, 8, 16])
def test_as_many_cards_as_chips_match_by_a_group_where_each_chip_has_its_own(kind, size):
    """What AWS's claims ask for, and its negative test: four chips under one devicegroup1_id are never found."""
    name = f"resource.aws.com/devicegroup{size}_id"
    chips = Counter(chip[name] for chip in chip_groups(kind).values())
    cards = Counter(card["attributes"][name]["string"] for card in offered(kind))
    shared = kind.chips // len(efa_devices(kind))
    assert chips.keys() == cards.keys()
    assert set(chips.values()) == {max(size, shared)}
    assert set(cards.values()) == {max(size // shared, 1)}


@pytest.mark.parametrize("kind", WITH_EFA, ids=lambda kind: kind.name)
def test_two_chips_of_one_card_are_on_one_numa_node(kind):
    for card in efa_devices(kind):
        assert {kind.devices[chip].numa_node for chip in card.chips} == {card.numa_node}


@pytest.mark.parametrize("kind", WITH_EFA, ids=lambda kind: kind.name)
def test_the_api_server_takes_the_cards(kind):
    cards = offered(kind, faults=[fault()])
    assert len(cards) <= MAX_DEVICES_PER_SLICE
    assert len({card["name"] for card in cards}) == len(cards)
    for card in cards:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", card["name"])
        values = [content for value in card["attributes"].values() for content in value.values()]
        assert all(0 < len(value) <= MAX_VALUE_LENGTH for value in values if isinstance(value, str))


def test_cards_are_numbered_by_their_addresses():
    cards = efa_devices(instance_type("trn2.48xlarge"))
    assert [card.verbs for card in cards] == list(range(16))
    assert [card.pci_bdf for card in cards] == sorted(card.pci_bdf for card in cards)
    assert (cards[0].pci_bdf, cards[0].rdma_device) == ("0000:56:00.0", "rdmap86s0")


def test_a_broken_node_breaks_its_cards_and_a_broken_chip_does_not():
    kind = instance_type("trn2.48xlarge")
    for partial in (fault(chip=3), fault(chip=3, core=1)):
        assert all("taints" not in card for card in offered(kind, faults=[partial]))
    for card in offered(kind, faults=[fault(chip=3), fault()]):
        assert [(taint["value"], taint["effect"]) for taint in card["taints"]] == [("DeviceLost", "NoExecute")]
