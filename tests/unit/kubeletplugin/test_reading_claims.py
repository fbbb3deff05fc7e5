"""What a driver makes of the claim that the kubelet names: its own devices, or a sentence for the pod's event."""

from __future__ import annotations

from typing import Any

import pytest
from neuron_dra_driver.kubeletplugin import AllocatedDevice, ClaimNotUsable, ClaimRef, allocated_devices

REF = ClaimRef("team", "mine", "uid-1")


def claim(*results: dict[str, Any], uid: str = "uid-1", **status: Any) -> dict[str, Any]:
    allocation = {"devices": {"results": list(results)}}
    return {
        "metadata": {"namespace": "team", "name": "mine", "uid": uid},
        "status": {"allocation": allocation, **status},
    }


def result(device: str, *, driver: str = "example.com", pool: str = "node-1", **fields: Any) -> dict[str, Any]:
    return {"request": "req", "driver": driver, "pool": pool, "device": device, **fields}


def test_only_the_drivers_own_devices_on_this_node_count() -> None:
    found = allocated_devices(
        claim(
            result("a"),
            result("b", driver="other.example.com"),
            result("c", pool="node-2"),
            result("d", request="main/sub", shareID="share", adminAccess=True),
        ),
        REF,
        driver_name="example.com",
        pool="node-1",
    )
    assert found == (
        AllocatedDevice("req", "node-1", "a"),
        AllocatedDevice("main/sub", "node-1", "d", share_id="share", admin_access=True),
    )


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, r"team/mine does not exist any more"),
        (claim(result("a"), uid="uid-2"), r"made anew \(its uid is uid-2 now"),
        (claim(result("a"), allocation=None), r"not allocated \(any more\)"),
        ({"metadata": {"uid": "uid-1"}}, r"not allocated \(any more\)"),
        (claim(result("a", pool="node-2"), result("b", pool="node-3")), r"in node-2, node-3 and none in node-1"),
        (claim(result("a", driver="other.example.com")), r"in no pool and none in node-1"),
    ],
    ids=["deleted", "made anew", "deallocated", "never allocated", "elsewhere", "another driver's"],
)
def test_a_claim_that_is_not_to_be_prepared_here_is_refused(found: Any, text: str) -> None:
    with pytest.raises(ClaimNotUsable, match=text) as refused:
        allocated_devices(found, REF, driver_name="example.com", pool="node-1")
    assert "delete the pod" in str(refused.value)
