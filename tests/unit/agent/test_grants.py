"""What names of devices mean on a node: cores, numbers in the container, LNC. And what stays when the node changes."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.ultraserver import Seat
from neuron_device_model.view import GivenChip
from neuron_dra_driver.allocations import grants
from neuron_dra_driver.allocations.allocation import Allocation
from neuron_dra_driver.allocations.grants import Grant, grant, is_of
from neuron_dra_driver.errors import ClaimError
from neuron_dra_driver.node import SimulatedNode, standalone
from neuron_dra_driver.records.checkpoint import Entry

EXTENDED = {"resource.kubernetes.io/extended-resource-claim": "true"}


def chips(granted: Grant) -> dict[str, dict[int, tuple[int, Any]]]:
    """Number in the container → chip and its cores (None: all), by request."""
    return {
        request.name: {
            index: (chip.host_index, chip.cores) for index, chip in enumerate(request.chips, request.first_index)
        }
        for request in granted.requests
    }


def record(granted: Grant) -> Entry:
    """The claim's record once it is prepared."""
    allocation = granted.allocation
    return Entry(allocation.uid, allocation.namespace, allocation.name, granted.held, runtime="tree")


def node(type_name: str = "trn2.48xlarge", *, lnc: int | None = None, **cut: str) -> SimulatedNode:
    cut = {"partitions": "physical", **cut}
    return standalone(name="worker-1", type_name=type_name, logical_neuron_core=lnc, **cut)


# --- numbers in the container


def test_chips_are_in_the_hosts_order_whatever_the_allocator_chose(make: Any, trn2: SimulatedNode) -> None:
    granted = grant(make.allocation(make.claim(devices={"n": [10, 2, 9]})), trn2)
    assert chips(granted) == {"n": {0: (2, None), 1: (9, None), 2: (10, None)}}
    assert [device.name for device in granted.requests[0].devices] == [f"neuron-device-{n}" for n in (2, 9, 10)]


def test_numbers_run_on_over_requests(make: Any, trn2: SimulatedNode) -> None:
    granted = grant(make.allocation(make.claim(devices={"b": [4, 5], "a": [0]})), trn2)
    assert chips(granted) == {"b": {0: (4, None), 1: (5, None)}, "a": {2: (0, None)}}


def test_every_container_of_a_scheduler_made_claim_counts_from_0(make: Any, cut: SimulatedNode) -> None:
    devices = {
        "container-0-request-0": [3],
        "container-0-request-1": ["neuron-core-4"],
        "container-1-request-0": [5],
    }
    granted = grant(make.allocation(make.claim(devices=devices, annotations=EXTENDED)), cut)
    assert chips(granted) == {
        "container-0-request-0": {0: (3, None)},
        "container-0-request-1": {1: (1, (0,))},
        "container-1-request-0": {0: (5, None)},
    }


def test_a_chip_counts_once_however_many_of_its_cores_there_are(make: Any, cut: SimulatedNode) -> None:
    devices = {"n": ["neuron-core-9", "neuron-core-2", "neuron-core-11", "neuron-core-8"]}
    granted = grant(make.allocation(make.claim(devices=devices)), cut)
    assert chips(granted) == {"n": {0: (0, (2,)), 1: (2, (0, 1, 3))}}


def test_each_request_numbers_its_own_chips(make: Any, cut: SimulatedNode) -> None:
    granted = grant(make.allocation(make.claim(devices={"a": ["neuron-core-0"], "b": ["neuron-core-1"]})), cut)
    assert chips(granted) == {"a": {0: (0, (0,))}, "b": {1: (0, (1,))}}


def test_all_cores_of_a_chip_are_the_chip(make: Any, cut: SimulatedNode) -> None:
    devices = {"n": [f"neuron-core-{n}" for n in range(4, 8)]}
    assert chips(grant(make.allocation(make.claim(devices=devices)), cut)) == {"n": {0: (1, None)}}


def test_the_node_is_all_its_chips(make: Any) -> None:
    granted = grant(make.allocation(make.claim(devices={"n": ["neuron-node"]})), node("trn2u.48xlarge", devices="both"))
    assert chips(granted) == {"n": {n: (n, None) for n in range(16)}}


@pytest.mark.parametrize("name", ["gpu-0", "neuron-device-16", "neuron-core-64", "neuron-node", "neuron-core--1", ""])
def test_a_device_that_the_node_does_not_offer(make: Any, cut: SimulatedNode, name: str) -> None:
    with pytest.raises(
        ClaimError, match=r"^claim team/mine: node worker-1 has no .*\(any more\): it is a trn2.48xlarge"
    ):
        grant(make.allocation(make.claim(devices={"n": [name]})), cut)


def test_what_is_cut_out_by_nobody_is_not_offered(make: Any, trn2: SimulatedNode) -> None:
    allocation: Allocation = make.allocation(make.claim(devices={"n": ["neuron-core-0"]}))
    with pytest.raises(ClaimError, match=r"no neuron-core-0 .* \(partitions none\)"):
        grant(allocation, trn2)
    plugin = replace(allocation, origin="device-plugin")
    assert chips(grant(plugin, trn2)) == {"n": {0: (0, (0,))}}, "device plugins offer cores in a list of their own"


# --- LNC


def lnc_of(granted: Grant) -> list[int]:
    return [request.logical_neuron_core for request in granted.requests]


@pytest.mark.parametrize(
    ("device", "node_lnc", "effective"),
    [
        ("neuron-device-1", 2, 2),
        ("neuron-device-1", 1, 1),
        ("neuron-core-4", 2, 2),
        ("neuron-core-8", 1, 1),
        ("neuron-physical-core-8", 2, 1),
    ],
)
def test_without_configuration_the_node_says_it(make: Any, device: str, node_lnc: int, effective: int) -> None:
    granted = grant(make.allocation(make.claim(devices={"n": [device]})), node(lnc=node_lnc))
    assert lnc_of(granted) == [effective]
    assert chips(granted)["n"][0][0] == 1


@pytest.mark.parametrize(
    ("devices", "asked", "given"),
    [
        (["neuron-device-1"], 1, GivenChip(1)),
        (["neuron-core-4"], 1, GivenChip(1, (0, 1))),
        (["neuron-core-5"], 2, GivenChip(1, (1,))),
        (["neuron-physical-core-12"], 1, GivenChip(1, (4,))),
        (["neuron-physical-core-13", "neuron-physical-core-12"], 2, GivenChip(1, (2,))),
    ],
)
def test_a_claim_may_have_another_lnc_on_the_same_cores(
    make: Any, cut: SimulatedNode, devices: list[str], asked: int, given: GivenChip
) -> None:
    granted = grant(make.allocation(make.claim(devices={"n": devices}, config=[make.lnc(asked)])), cut)
    assert lnc_of(granted) == [asked]
    assert granted.requests[0].chips == (given,)


@pytest.mark.parametrize(
    ("devices", "lnc", "alone"),
    [
        (["neuron-physical-core-9"], 2, "core 1 of neuron-device-1"),
        (["neuron-physical-core-9", "neuron-physical-core-10"], 2, "core 1-2 of neuron-device-1"),
        (["neuron-physical-core-7", "neuron-physical-core-8"], 2, "core 7 of neuron-device-0"),
        (["neuron-core-8", "neuron-core-9", "neuron-core-12"], 1, "core 4 of neuron-device-1"),
    ],
)
def test_logical_cores_are_made_of_pairs(make: Any, devices: list[str], lnc: int, alone: str) -> None:
    claim = make.claim(devices={"n": devices}, config=[make.lnc(2)])
    with pytest.raises(ClaimError, match=rf"request n is given {alone} without its neighbour, and spec.devices.config"):
        grant(make.allocation(claim), node(lnc=lnc))


@pytest.mark.parametrize("type_name", ["trn1.32xlarge", "inf2.48xlarge", "inf1.24xlarge"])
def test_chips_that_have_one_lnc_refuse_another(make: Any, type_name: str) -> None:
    with pytest.raises(
        ClaimError, match=r"spec.devices.config\[0\] .*: logicalNeuronCore is 2, which .* does not have"
    ):
        grant(make.allocation(make.claim(config=[make.lnc(2)])), node(type_name))
    assert lnc_of(grant(make.allocation(make.claim(config=[make.lnc(1)])), node(type_name))) == [1]


def test_requests_of_a_claim_agree_on_a_chip(make: Any, cut: SimulatedNode) -> None:
    devices = {"a": ["neuron-core-0"], "b": ["neuron-physical-core-7"]}
    with pytest.raises(
        ClaimError, match=r"requests a and b are given cores of neuron-device-0 .* 2 and 1, and a chip h"
    ):
        grant(make.allocation(make.claim(devices=devices)), cut)
    assert lnc_of(grant(make.allocation(make.claim(devices=devices, config=[make.lnc(1)])), cut)) == [1, 1]


def test_admin_access_sees_chips_as_the_node_has_them(make: Any, cut: SimulatedNode) -> None:
    devices = {"n": ["neuron-device-0", "neuron-core-0", "neuron-core-5"]}
    granted = grant(make.allocation(make.claim(devices=devices, admin=True, config=[make.lnc(1)])), cut)
    assert lnc_of(granted) == [2]
    assert chips(granted) == {"n": {0: (0, None), 1: (1, (1,))}}
    assert granted.shares == {}


# --- UltraServers


def ultraserver(make: Any, servers: int = 4) -> Any:
    return make.opaque({"apiVersion": "neuron.aws.com/v1", "kind": "UltraServerConfig", "ultraserverMode": servers})


def member(size: int) -> SimulatedNode:
    """The first server of an UltraServer; with a size of 0 a server of its own."""
    alone = node("trn2u.48xlarge", devices="both")
    return replace(alone, seat=Seat("u5wy80u0o2saugxy", size, 0)) if size else alone


def test_an_ultraserver_config_is_for_whole_nodes_of_ultraservers(make: Any, trn2: SimulatedNode) -> None:
    claim = make.claim(devices={"n": ["neuron-node"]}, config=[ultraserver(make)])
    granted = grant(make.allocation(claim), member(4))
    assert granted.requests[0].config.ultraserver
    with pytest.raises(
        ClaimError, match=r"neuron_node.* request n is given neuron-node of a trn2.48xlarge: remove the"
    ):
        grant(make.allocation(claim), node(devices="both"))
    with pytest.raises(ClaimError, match=r"request n is given neuron-device-0 of a trn2u.48xlarge"):
        grant(
            make.allocation(make.claim(devices={"n": [0]}, config=[ultraserver(make)])),
            member(4),
        )


@pytest.mark.parametrize(("size", "possible"), [(0, {1}), (2, {1, 2}), (4, {1, 2, 4}), (36, {1, 2, 4})])
def test_a_mode_needs_an_ultraserver_of_as_many_servers(make: Any, size: int, possible: set[int]) -> None:
    for servers in (1, 2, 4):
        allocation = make.allocation(make.claim(devices={"n": ["neuron-node"]}, config=[ultraserver(make, servers)]))
        if servers in possible:
            assert grant(allocation, member(size)).requests[0].config.ultraserver
        else:
            where = f"an UltraServer of {size} servers" if size else "no UltraServer"
            with pytest.raises(
                ClaimError, match=rf"ultraserverMode is {servers}, and node worker-1 is in {where}.* write ultraserverM"
            ):
                grant(allocation, member(size))


# --- claims that are prepared while the node changes


def test_a_prepared_claim_keeps_what_its_names_meant(make: Any) -> None:
    allocation = make.allocation(make.claim(devices={"n": ["neuron-core-5", "neuron-core-60"], "c": [7]}))
    first = grant(allocation, node())
    for changed in (node(lnc=1), node(partitions="none"), node(lnc=1, partitions="none")):
        again = grant(allocation, changed, before=record(first))
        assert again.held == first.held
        assert again.requests == first.requests
        assert is_of(record(again), allocation)


def test_a_new_claim_has_what_its_names_mean_now(make: Any) -> None:
    allocation = make.allocation(make.claim(devices={"n": ["neuron-core-5"]}))
    assert chips(grant(allocation, node(lnc=2))) == {"n": {0: (1, (1,))}}
    assert chips(grant(allocation, node(lnc=1))) == {"n": {0: (0, (5,))}}


def test_hardware_that_went_away_is_not_kept(make: Any) -> None:
    allocation = make.allocation(make.claim(devices={"n": ["neuron-core-5"]}))
    before = record(grant(allocation, node()))
    with pytest.raises(ClaimError, match="no neuron-core-5 "):
        grant(allocation, node("inf2.xlarge"), before=before)
    now = grant(allocation, node("inf2.48xlarge"), before=before)
    assert chips(now) == {"n": {0: (2, (1,))}}, "other chips: the name is all that is left"
    assert lnc_of(now) == [1]


def test_a_record_of_an_earlier_agent_has_whole_chips(make: Any, trn2: SimulatedNode) -> None:
    allocation = make.allocation(make.claim(devices={"n": [3]}))
    before = record(grant(allocation, trn2))
    whole = tuple(replace(held, cores=((3, -1),), logical_neuron_core=0) for held in before.devices)
    before = replace(before, devices=whole)
    assert is_of(before, allocation)
    assert grant(allocation, trn2, before=before) == grant(allocation, trn2)


def test_what_is_remembered_is_of_the_devices_and_of_the_node_as_it_is(
    make: Any, trn2: SimulatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "REMEMBERED", 2)
    here = replace(trn2)
    first, other = (make.allocation(make.claim(name, devices={"n": [3]})) for name in ("first", "other"))
    assert grant(first, here).requests is grant(other, here).requests
    assert grant(other, here).allocation is other
    configured = make.allocation(make.claim(devices={"n": [3]}, config=[make.lnc(1)]))
    assert (lnc_of(grant(configured, here)), lnc_of(grant(first, here))) == ([1], [2])
    assert lnc_of(grant(first, replace(here, logical_neuron_core=1))) == [1]
    for chip in range(16):
        granted = grant(make.allocation(make.claim(devices={"n": [chip]})), here)
        assert chips(granted) == {"n": {0: (chip, None)}}
    assert len(here.grants) <= 2


# --- any mixture

NAMES = [name for lnc in (1, 2) for name in node(lnc=lnc, devices="both").devices]
requests = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True), max_size=3
)


@given(
    given_names=requests.filter(bool),
    node_lnc=st.sampled_from([1, 2]),
    asked=st.sampled_from([None, 1, 2]),
    type_name=st.sampled_from(["trn2.48xlarge", "trn1.32xlarge", "trn2u.48xlarge", "inf2.24xlarge"]),
)
def test_what_is_given_is_what_the_names_stand_for(
    make: Any, given_names: dict[str, list[str]], node_lnc: int, asked: int | None, type_name: str
) -> None:
    """Physical cores of the names = physical cores of the view, in every mixture; or a ClaimError."""
    here = node(type_name, lnc=node_lnc if type_name.startswith("trn2") else None, devices="both")
    config = [make.lnc(asked)] if asked else []
    try:
        granted = grant(make.allocation(make.claim(devices=given_names, config=config)), here)
    except ClaimError:
        return
    per_chip = here.instance_type.chip.physical_cores
    for request in granted.requests:
        lnc = request.logical_neuron_core
        expected = {core for name in given_names[request.name] for core in here.part(name).physical_cores}
        seen = {
            chip.host_index * per_chip + core * lnc + k
            for chip in request.chips
            for core in (range(per_chip // lnc) if chip.cores is None else chip.cores)
            for k in range(lnc)
        }
        assert seen == expected
        held = {
            chip * per_chip + core
            for device in request.held
            for chip, mask in device.cores
            for core in range(per_chip)
            if mask >> core & 1
        }
        assert held == expected
