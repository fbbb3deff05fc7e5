"""Names of devices: which there are, in which order, and which hardware each stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.catalog import InstanceType, instance_type, instance_types
from neuron_device_model.cores import UnsupportedLogicalNeuronCore
from neuron_device_model.partitions import Part, UnknownDevice, part, parts

TRN2 = instance_type("trn2.48xlarge")


def names(kind: InstanceType = TRN2, *, lnc: int = 2, partitions: str = "logical", devices: str = "chips") -> list[str]:
    return list(parts(kind, logical_neuron_core=lnc, partitions=partitions, devices=devices))


@pytest.mark.parametrize(
    ("name", "lnc", "expected"),
    [
        ("neuron-device-0", 2, Part("chip", 0, (0,), (0, 1, 2, 3, 4, 5, 6, 7))),
        ("neuron-device-15", 1, Part("chip", 15, (15,), tuple(range(120, 128)))),
        ("neuron-core-0", 2, Part("core", 0, (0,), (0, 1))),
        ("neuron-core-5", 2, Part("core", 5, (1,), (10, 11))),
        ("neuron-core-63", 2, Part("core", 63, (15,), (126, 127))),
        ("neuron-core-5", 1, Part("core", 5, (0,), (5,))),
        ("neuron-physical-core-11", 2, Part("physical_core", 11, (1,), (11,))),
        ("neuron-node", 2, Part("node", 0, tuple(range(16)), tuple(range(128)))),
    ],
)
def test_a_name_stands_for_its_hardware(name: str, lnc: int, expected: Part) -> None:
    assert part(name, TRN2, logical_neuron_core=lnc) == expected


def test_cores_come_first_and_ascend_then_chips_descend_then_the_node() -> None:
    assert names(partitions="physical", devices="both") == [
        *(f"neuron-core-{index}" for index in range(64)),
        *(f"neuron-physical-core-{index}" for index in range(128)),
        *(f"neuron-device-{index}" for index in reversed(range(16))),
        "neuron-node",
    ]


def test_chips_alone_ascend_as_awss_do() -> None:
    chips = [f"neuron-device-{index}" for index in range(16)]
    assert names(partitions="none") == chips
    assert names(partitions="none", devices="both") == [*chips, "neuron-node"]


def test_a_pool_that_offers_the_node_offers_no_chips() -> None:
    assert names(partitions="none", devices="node") == ["neuron-node"]
    assert names(devices="node") == [*(f"neuron-core-{index}" for index in range(64)), "neuron-node"]


@pytest.mark.parametrize(("kind", "lnc"), [("trn2.3xlarge", 1), ("trn1.2xlarge", 1), ("inf1.xlarge", 1)])
def test_a_logical_core_of_one_physical_core_is_not_offered_twice(kind: str, lnc: int) -> None:
    assert names(instance_type(kind), lnc=lnc, partitions="physical") == names(instance_type(kind), lnc=lnc)


@pytest.mark.parametrize("kind", instance_types(), ids=lambda kind: kind.name)
def test_the_devices_of_each_kind_are_the_whole_node_cut_without_rest(kind: InstanceType) -> None:
    for lnc in kind.chip.logical_neuron_core_values:
        cut: dict[str, list[int]] = {}
        for name in names(kind, lnc=lnc, partitions="physical", devices="both"):
            piece = part(name, kind, logical_neuron_core=lnc)
            cut.setdefault(piece.kind, []).extend(sorted(piece.physical_cores))
            assert set(piece.chips) == {core // kind.chip.physical_cores for core in piece.physical_cores}
        cut["chip"].sort()
        assert set(cut) == {"core", "chip", "node"} | ({"physical_core"} if lnc > 1 else set())
        assert all(cores == list(range(kind.physical_cores)) for cores in cut.values())


@pytest.mark.parametrize(
    "name",
    ["", "neuron-core-", "neuron-core-64", "neuron-core-01", "neuron-core--1", "neuron-device-16", "neuron-node-0",
     "neuron-physical-core-128", "neurondevice0", "gpu-0", "neuron-core-0\n", "neuron-device-" + "9" * 5000],
)  # fmt: skip
def test_another_name_is_answered_with_those_there_are(name: str) -> None:
    with pytest.raises(UnknownDevice) as raised:
        part(name, TRN2, logical_neuron_core=2)
    assert str(raised.value) == (
        f"trn2.48xlarge with logical NeuronCore configuration 2 has no device {name!r}: it has neuron-core-0 to "
        "neuron-core-63, neuron-physical-core-0 to neuron-physical-core-127, neuron-device-0 to neuron-device-15 "
        "and neuron-node"
    )


def test_physical_cores_have_no_names_of_their_own_where_logical_ones_are_physical() -> None:
    with pytest.raises(UnknownDevice, match=r"it has neuron-core-0 to neuron-core-127, neuron-device-0 to neuron-dev"):
        part("neuron-physical-core-0", TRN2, logical_neuron_core=1)


EVERY_NAME = frozenset(names(partitions="physical", devices="both"))


@given(st.text() | st.from_regex(r"neuron-(core|physical-core|device|node)-?[0-9]{0,5}\n?", fullmatch=True))
def test_whatever_a_name_is_it_is_resolved_or_refused(name: str) -> None:
    try:
        found = part(name, TRN2, logical_neuron_core=2)
    except UnknownDevice:
        assert name not in EVERY_NAME
    else:
        assert name in EVERY_NAME
        assert found.physical_cores


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"partitions": "lnc"}, "partitions must be none, logical or physical, not 'lnc'"),
        ({"devices": "all"}, "devices must be chips, node or both, not 'all'"),
    ],
)
def test_another_choice_is_answered_with_those_there_are(choice: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        names(**choice)  # type: ignore[arg-type]


def test_an_lnc_that_the_chip_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedLogicalNeuronCore):
        names(instance_type("trn1.2xlarge"), lnc=2)
