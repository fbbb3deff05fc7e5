"""What of a claim is ours to prepare, for every shape that a claim can have."""

from typing import Any

import pytest
from neuron_dra_driver.allocations.allocation import Allocation, allocation_on, still_holds
from neuron_dra_driver.errors import ClaimError

DRIVER = "neuron.aws.com"
NODE = "worker-1"
EXTENDED = {"resource.kubernetes.io/extended-resource-claim": "true"}


def read(claim: dict[str, Any], *, uid: str = "") -> Allocation:
    return allocation_on(claim, uid=uid or claim["metadata"]["uid"], driver=DRIVER, pool=NODE)


def names(allocation: Allocation) -> dict[str, list[str]]:
    """The devices of each request."""
    return {request.name: [device.name for device in request.devices] for request in allocation.requests}


def test_chips_cores_and_the_node_are_all_devices(make: Any) -> None:
    devices = {"a": ["neuron-device-7"], "b": ["neuron-core-3", "neuron-physical-core-99"], "c": ["neuron-node"]}
    assert names(read(make.claim(devices=devices))) == devices


def test_requests_are_in_the_order_of_the_spec(make: Any) -> None:
    claim = make.claim(devices={"b": [4, 5], "a": [0]})
    claim["status"]["allocation"]["devices"]["results"].reverse()
    assert list(names(read(claim))) == ["b", "a"]


def test_a_claim_made_by_the_scheduler_has_requests_of_several_containers(make: Any) -> None:
    requests = ["container-0-request-0", "container-0-request-1", "container-1-request-0"]
    claim = make.claim(devices={name: [n] for n, name in enumerate(requests)}, annotations=EXTENDED)
    assert [request.user for request in read(claim).requests] == ["container-0", "container-0", "container-1"]
    claim = make.claim(devices={name: [n] for n, name in enumerate(requests)})
    assert [request.user for request in read(claim).requests] == ["", "", ""]


def test_first_available_is_known_by_its_main_request(make: Any) -> None:
    (request,) = read(make.claim(devices={"chips/four": [0, 1, 2, 3]})).requests
    assert request.name == "chips"
    assert {device.request for device in request.devices} == {"chips/four"}


def test_admin_access_is_kept(make: Any) -> None:
    assert all(device.admin_access for device in read(make.claim(admin=True)).devices)


def test_share_id_is_kept(make: Any) -> None:
    results = [{"request": "n", "driver": DRIVER, "pool": NODE, "device": "neuron-device-0", "shareID": "s-1"}]
    assert read(make.claim(results=results)).devices[0].share_id == "s-1"


def test_devices_of_other_drivers_and_pools_are_not_ours(make: Any) -> None:
    results = [
        {"request": "efa", "driver": "dra.net", "pool": NODE, "device": "efa-0"},
        {"request": "n", "driver": DRIVER, "pool": NODE, "device": "neuron-device-3"},
        {"request": "far", "driver": DRIVER, "pool": "a-network-pool", "device": "neuron-device-0"},
    ]
    assert names(read(make.claim(results=results))) == {"n": ["neuron-device-3"]}


def test_the_pods_name_for_a_claim_from_a_template(make: Any) -> None:
    claim = make.claim(annotations={"resource.kubernetes.io/pod-claim-name": "chips"})
    assert read(claim).pod_claim_name == "chips"
    assert read(make.claim()).pod_claim_name is None


def test_a_claim_made_anew_under_the_same_name(make: Any) -> None:
    with pytest.raises(ClaimError, match=r"team/mine was deleted and made anew .* delete the pod"):
        read(make.claim(), uid="an-older-uid")


@pytest.mark.parametrize("status", [{}, None, {"allocation": None}])
def test_not_allocated(make: Any, status: Any) -> None:
    with pytest.raises(ClaimError, match="not allocated"):
        read(make.claim() | {"status": status})


def test_allocated_on_another_node(make: Any) -> None:
    with pytest.raises(ClaimError, match="allocated in pool worker-2 and not on node worker-1"):
        read(make.claim(pool="worker-2"))


def test_nothing_of_ours_at_all(make: Any) -> None:
    with pytest.raises(ClaimError, match="no device of driver"):
        read(make.claim(results=[{"request": "r", "driver": "dra.net", "pool": NODE, "device": "efa-0"}]))


def test_configuration_that_is_wrong_names_the_claim_and_the_place(make: Any) -> None:
    with pytest.raises(ClaimError, match=r"^claim team/mine: spec.devices.config\[0\] .* unknown field"):
        read(make.claim(config=[make.opaque({"apiVersion": "neuron.aws.com/v1", "kind": "NeuronConfig", "lnc": 1})]))


def test_each_request_has_its_configuration(make: Any) -> None:
    claim = make.claim(devices={"a/sub": [0], "b": [1]}, config=[make.lnc(1, requests=["a"]), make.lnc(2)])
    claim["status"]["allocation"]["devices"]["config"].reverse()
    a, b = read(claim).requests
    assert a.config.neuron
    assert b.config.neuron
    assert (a.config.neuron.logical_neuron_core, b.config.neuron.logical_neuron_core) == (1, 2)


def test_configuration_for_other_drivers_is_theirs(make: Any) -> None:
    claim = make.claim()
    claim["status"]["allocation"]["devices"]["config"] = [{"opaque": {"driver": "dra.net", "parameters": {}}}]
    assert read(claim).devices


def test_whether_a_claim_still_holds_devices(make: Any) -> None:
    def holds(claim: Any, *devices: str) -> bool:
        return still_holds(claim, uid="uid-of-mine", driver=DRIVER, pool=NODE, devices=frozenset(devices))

    claim = make.claim(devices={"n": [0, 1]})
    assert holds(claim, "neuron-device-0", "neuron-device-1")
    assert not holds(claim, "neuron-device-2")
    assert not holds(None, "neuron-device-0")
    assert not holds(make.claim(uid="another"), "neuron-device-0")
    assert not holds(make.claim(pool="worker-2"), "neuron-device-0")
    assert not holds(make.claim() | {"status": {}}, "neuron-device-0")
