"""What of a claim is ours to prepare, for every shape that a claim can have."""

from typing import Any

import pytest
from neuron_dra_driver.claims import Allocation, allocation_on, still_holds
from neuron_dra_driver.errors import ClaimError

DRIVER = "neuron.aws.com"
NODE = "worker-1"
EXTENDED = {"resource.kubernetes.io/extended-resource-claim": "true"}


def read(claim: dict[str, Any], *, uid: str = "") -> Allocation:
    return allocation_on(claim, uid=uid or claim["metadata"]["uid"], driver=DRIVER, pool=NODE)


def numbering(allocation: Allocation) -> dict[str, dict[int, int]]:
    """Number in the container → number on the host, by request."""
    return {
        request.name: {request.first_index + n: device.index for n, device in enumerate(request.devices)}
        for request in allocation.requests
    }


def test_one_device(make: Any) -> None:
    assert numbering(read(make.claim(devices={"neurons": [7]}))) == {"neurons": {0: 7}}


def test_devices_of_a_request_are_in_host_order_whatever_the_allocator_chose(make: Any) -> None:
    assert numbering(read(make.claim(devices={"n": [10, 2, 9]}))) == {"n": {0: 2, 1: 9, 2: 10}}


def test_all_devices(make: Any) -> None:
    assert numbering(read(make.claim(devices={"all": list(range(16))}))) == {"all": {n: n for n in range(16)}}


def test_numbers_run_on_over_requests_in_the_order_of_the_spec(make: Any) -> None:
    claim = make.claim(devices={"b": [4, 5], "a": [0]})
    claim["status"]["allocation"]["devices"]["results"].reverse()
    assert numbering(read(claim)) == {"b": {0: 4, 1: 5}, "a": {2: 0}}


def test_a_claim_made_by_the_scheduler_counts_anew_per_container(make: Any) -> None:
    claim = make.claim(devices={"container-0-request-0": [3], "container-1-request-0": [4]}, annotations=EXTENDED)
    assert numbering(read(claim)) == {"container-0-request-0": {0: 3}, "container-1-request-0": {0: 4}}


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
    assert numbering(read(make.claim(results=results))) == {"n": {0: 3}}


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


def test_a_device_that_no_such_driver_has(make: Any) -> None:
    with pytest.raises(ClaimError, match="gpu-0 is not one that this driver offers"):
        read(make.claim(results=[{"request": "r", "driver": DRIVER, "pool": NODE, "device": "gpu-0"}]))


@pytest.mark.parametrize(("source", "where"), [("FromClaim", "spec.devices.config"), ("FromClass", "DeviceClass")])
def test_configuration_for_our_driver_is_refused_by_name(make: Any, source: str, where: str) -> None:
    claim = make.claim()
    config = {"source": source, "opaque": {"driver": DRIVER, "parameters": {"kind": "NeuronConfig"}}}
    claim["status"]["allocation"]["devices"]["config"] = [config]
    with pytest.raises(ClaimError, match=f"NeuronConfig .* not support yet: remove .*{where}"):
        read(claim)


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
