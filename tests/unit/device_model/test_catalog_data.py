"""The facts in the data files hold together: types, counts, links, addresses, published totals."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from neuron_device_model.catalog import (
    DEFAULT_SDK_VERSION,
    Chip,
    InstanceType,
    SdkRelease,
    UltraServerType,
    instance_type,
    instance_types,
    sdk_release,
    sdk_releases,
    ultraserver_types,
)
from neuron_device_model.catalog.chips import chips
from neuron_device_model.catalog.compile import compiled
from neuron_device_model.catalog.documents import COMPILED, DATA
from neuron_device_model.catalog.instances import FAMILY_FILES
from neuron_device_model.topology import Topology
from pydantic import TypeAdapter

BDF = re.compile(r"0000:[0-9a-f]{2}:[0-9a-f]{2}\.0")
GIB = 1 << 30

# AWS docs, the size tables of about-neuron/arch/neuron-hardware/*-arch.rst, and Karpenter's table of EC2 figures:
# chips, physical cores, visible cores at the default LNC, device memory GiB, vCPUs, host memory GiB, EFA devices.
PUBLISHED = {
    "inf1.xlarge": (1, 4, 4, 8, 4, 8, 0),
    "inf1.2xlarge": (1, 4, 4, 8, 8, 16, 0),
    "inf1.6xlarge": (4, 16, 16, 32, 24, 48, 0),
    "inf1.24xlarge": (16, 64, 64, 128, 96, 192, 1),
    "inf2.xlarge": (1, 2, 2, 32, 4, 16, 0),
    "inf2.8xlarge": (1, 2, 2, 32, 32, 128, 0),
    "inf2.24xlarge": (6, 12, 12, 192, 96, 384, 0),
    "inf2.48xlarge": (12, 24, 24, 384, 192, 768, 0),
    "trn1.2xlarge": (1, 2, 2, 32, 8, 32, 0),
    "trn1.32xlarge": (16, 32, 32, 512, 128, 512, 8),
    "trn1n.32xlarge": (16, 32, 32, 512, 128, 512, 16),
    "trn2.48xlarge": (16, 128, 64, 1536, 192, 2048, 16),
    "trn2u.48xlarge": (16, 128, 64, 1536, 192, 2048, 16),
}

# The same pages: chips, vCPUs, host memory GiB, device memory GiB, EFA Gbps of a whole UltraServer. (The trn2 page
# prints the EFA figure of one instance.)
PUBLISHED_ULTRASERVERS = {
    "trn2": (64, 768, 8192, 6144, 4 * 3200),
    "trn3-gen1": (64, 768, 8192, 9216, 12800),
    "trn3-gen2": (144, 2304, 27648, 20736, 28800),
}

every_type = pytest.mark.parametrize("kind", instance_types(), ids=lambda kind: kind.name)


@pytest.mark.parametrize(
    ("declared", "rows"),
    [
        (Chip, tuple(chips().values())),
        (InstanceType, instance_types()),
        (SdkRelease, sdk_releases()),
        (UltraServerType, ultraserver_types()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_value_has_its_declared_type(declared: type, rows: tuple[object, ...]) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(declared)
    assert rows
    for row in rows:
        adapter.validate_json(json.dumps(plain(row)), strict=True)


@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_equal_the_published_ones(name: str) -> None:
    kind = instance_type(name)
    assert PUBLISHED[name] == (
        kind.chips,
        kind.physical_cores,
        kind.cores(kind.chip.default_logical_neuron_core),
        kind.device_memory_bytes // GIB,
        kind.vcpus,
        kind.memory_gib,
        kind.efa_count,
    )


@pytest.mark.parametrize("ultraserver", ultraserver_types(), ids=lambda kind: kind.name)
def test_members_have_the_chips_of_their_ultraserver(ultraserver: UltraServerType) -> None:
    members = [kind for kind in instance_types() if kind.ultraserver == ultraserver.name]
    assert {kind.chips for kind in members} == {ultraserver.chips_per_server}


@pytest.mark.parametrize("name", PUBLISHED_ULTRASERVERS)
def test_members_add_up_to_the_published_ultraserver(name: str) -> None:
    [ultraserver] = [kind for kind in ultraserver_types() if kind.name == name]
    for kind in (kind for kind in instance_types() if kind.ultraserver == name):
        assert PUBLISHED_ULTRASERVERS[name] == (
            ultraserver.servers * kind.chips,
            ultraserver.servers * kind.vcpus,
            ultraserver.servers * kind.memory_gib,
            ultraserver.servers * kind.device_memory_bytes // GIB,
            ultraserver.servers * kind.network_gbps,
        )


@pytest.mark.parametrize("ultraserver", ultraserver_types(), ids=lambda kind: kind.name)
def test_ultraservers_are_wired_without_gaps(ultraserver: UltraServerType) -> None:
    assert Topology(ultraserver.topology, ultraserver.shape).size == ultraserver.chips
    servers = set(range(ultraserver.servers))
    if ultraserver.switch_groups:
        assert sorted(server for group in ultraserver.switch_groups for server in group) == sorted(servers)
    assert {server for link in ultraserver.server_links for server in link} == servers
    assert all(len(set(link)) == 2 for link in ultraserver.server_links)


@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp8"])
def test_chip_compute_adds_up_to_the_published_aggregate(precision: str) -> None:
    # TFLOPS of the Trn3 Gen1 and Gen2 UltraServers: AWS docs, trn3-arch.rst.
    published = {"bf16": (42944, 96624), "fp32": (11712, 26352), "fp8": (161088, 362448)}[precision]
    tflops = chips()["trainium3"].tflops[precision]
    assert (64 * tflops, 144 * tflops) == published


@every_type
def test_links_are_mutual(kind: InstanceType) -> None:
    for slot in kind.devices:
        assert len(set(slot.connected)) == len(slot.connected)
        for neighbour in slot.connected:
            assert slot.index in kind.devices[neighbour].connected


@every_type
def test_links_printed_are_the_topology(kind: InstanceType) -> None:
    # Behind a switch the driver prints the torus of its predecessor, or nothing: see trn3.toml.
    printed_as = {16: Topology("torus2d", (4, 4)), 4: None}[kind.chips] if kind.topology == "switch" else kind.wiring
    for slot in kind.devices:
        neighbours = printed_as.neighbours(slot.index) if printed_as else ()
        assert tuple(sorted(slot.connected)) == neighbours


@every_type
def test_addresses_are_well_formed_and_given_once(kind: InstanceType) -> None:
    neuron = [slot.pci_bdf for slot in kind.devices]
    efa = {slot.efa_bdf for slot in kind.devices} - {None}
    assert len(set(neuron)) == len(neuron)
    assert not efa & set(neuron)
    assert all(BDF.fullmatch(bdf) for bdf in {*neuron, *efa} if bdf)


@every_type
def test_efa_devices_listed_are_those_counted(kind: InstanceType) -> None:
    listed = {slot.efa_bdf for slot in kind.devices} - {None}
    assert len(listed) in (0, kind.efa_count)


@every_type
def test_affinities_name_every_vcpu_of_the_host(kind: InstanceType) -> None:
    cpus = [cpu for text in {slot.cpu_affinity for slot in kind.devices} for cpu in cpus_of(text)]
    assert sorted(cpus) == list(range(kind.vcpus))


@every_type
def test_devices_count_from_zero(kind: InstanceType) -> None:
    assert [slot.index for slot in kind.devices] == list(range(kind.chips))


@every_type
def test_chosen_fields_are_real_fields(kind: InstanceType) -> None:
    slot_fields = {"pci_bdf", "cpu_affinity", "numa_node", "connected"}
    type_fields = {"vcpus", "memory_gib", "efa_count", "network_gbps", "neuronlink", "topology"}
    assert set(kind.chosen) <= slot_fields | type_fields
    assert kind.source


def test_every_board_and_efa_map_is_used() -> None:
    for file in FAMILY_FILES:
        document = tomllib.loads((DATA / file).read_text())
        for table, key in (("board", "board"), ("efa_map", "efa_map")):
            offered = {row["name"] for row in document.get(table, [])}
            assert offered == {row[key] for row in document["instance_type"] if key in row}


def test_trn2_neighbours_stand_in_the_order_of_real_captures() -> None:
    devices = instance_type("trn2.48xlarge").devices
    assert devices[13].connected == (12, 1, 9, 14)
    assert devices[0].connected == (12, 1, 3, 4)
    assert devices[13].pci_bdf == "0000:e1:00.0"
    assert devices[13].numa_node == 1


def test_trn2n_neighbours_stand_in_the_order_of_the_docs() -> None:
    assert [slot.connected for slot in instance_type("trn2n.48xlarge").devices] == [
        slot.connected for slot in instance_type("trn1.32xlarge").devices
    ]


def test_inf2_48xlarge_equals_the_published_listing() -> None:
    slot = instance_type("inf2.48xlarge").devices[0]
    assert (slot.connected, slot.pci_bdf, slot.cpu_affinity, slot.numa_node) == (
        (11, 1), "0000:80:1e.0", "48-71,144-167", 2,
    )  # fmt: skip


def test_instance_types_can_be_keys() -> None:
    assert len(set(instance_types())) == len(instance_types())


def test_two_trn1_chips_share_an_efa_device() -> None:
    efa = [slot.efa_bdf for slot in instance_type("trn1.32xlarge").devices]
    assert efa[0::2] == efa[1::2]


def test_default_sdk_release_is_listed_with_its_packages() -> None:
    assert sdk_release(DEFAULT_SDK_VERSION) == SdkRelease(
        version="2.32.0",
        driver_version="2.30.2.0",
        tools_version="2.32.28.0",
        runtime_version="2.34.10.0",
        collectives_version="2.34.10.0",
        compiler_version="2.27.5334.0",
    )


def test_sdk_releases_go_from_new_to_old() -> None:
    versions = [tuple(map(int, release.version.split("."))) for release in sdk_releases()]
    assert versions == sorted(versions, reverse=True)


def test_every_data_file_is_read() -> None:
    named = {"chips.toml", "sdk.toml", "ultraservers.toml", *FAMILY_FILES}
    assert {path.name for path in Path(DATA).glob("*.toml")} == named


def plain(value: Any) -> Any:
    """The same value in JSON's types, nothing converted on the way."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return dict(value) if isinstance(value, Mapping) else value


def cpus_of(text: str) -> list[int]:
    spans = [part.partition("-") for part in text.split(",")]
    return [cpu for first, _, last in spans for cpu in range(int(first), int(last or first) + 1)]


def test_what_was_compiled_is_what_the_files_say_now() -> None:
    assert COMPILED.read_text() == compiled(), "make generate"
