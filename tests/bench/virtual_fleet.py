"""Virtual nodes of which some are busy: what tests and measures of their metrics have in common."""

from typing import Any

from neuron_dra_driver.virtual_nodes.device_page import DevicePage
from neuron_dra_driver.virtual_nodes.wanted import wanted
from neuron_dra_driver.virtual_nodes.workloads import Workloads

Object = dict[str, Any]

DRIVER = "neuron.aws.com"
BORN = "2026-01-01T00:00:00Z"


def neuron_node(name: str, *, faults: tuple[Object, ...] = (), record: str = "", **spec: Any) -> Object:
    """As the operator writes it for a trn2.48xlarge, with whole chips; `record`: of its hardware."""
    return {
        "metadata": {"name": name, "ownerReferences": [{"kind": "Node", "name": name, "uid": f"uid-{name}"}]},
        "spec": {
            "pool": "big",
            "instanceType": "trn2.48xlarge",
            "resources": "DRA",
            "partitions": "none",
            "devices": "chips",
            "instanceID": f"i-{name}",
            "networkNodes": ["nn-1", "nn-2", "nn-3"],
            **({"faults": list(faults)} if faults else {}),
            **spec,
        },
        "status": {"hardwareRecord": record} if record else {},
    }


def claim(name: str, *, node: str, devices: tuple[str, ...], users: tuple[str, ...], **status: Any) -> Object:
    """A claim that is allocated; `users`: uids of pods."""
    results = [{"driver": DRIVER, "pool": node, "device": device, "request": "chips"} for device in devices]
    return {
        "metadata": {"namespace": "team", "name": name, "uid": f"claim-{name}"},
        "spec": {"devices": {"requests": [{"name": "chips", "exactly": {"deviceClassName": DRIVER}}]}},
        "status": {
            "allocation": {"devices": {"results": results}},
            "reservedFor": [{"resource": "pods", "name": uid, "uid": uid} for uid in users],
            **status,
        },
    }


def pod(uid: str, *, claims: str, profile: str | None = "training", phase: str = "Running") -> Object:
    """A pod with one container, which uses a claim."""
    metadata: Object = {"namespace": "team", "name": uid, "uid": uid, "creationTimestamp": BORN}
    if profile:
        metadata["annotations"] = {"neuron-sim.dev/activity-profile": profile}
    return {
        "metadata": metadata,
        "spec": {
            "nodeName": "any",
            "containers": [{"name": "main", "resources": {"claims": [{"name": "neurons"}]}}],
            "resourceClaims": [{"name": "neurons", "resourceClaimName": claims}],
        },
        "status": {"phase": phase},
    }


def tell(page: DevicePage, node: Object) -> None:
    """Tell a page what a node is."""
    content = wanted(node, driver=DRIVER, efa=False, counters=True).content
    assert content.model
    page.node_is(node, content.model)


def occupy(workloads: Workloads, node: str, *, chips: int = 16, profile: str = "inference") -> None:
    """A pod on each of a node's chips."""
    for chip in range(chips):
        name = f"{node}-pod-{chip}"
        workloads.pod(pod(name, claims=name, profile=profile))
        workloads.claim(claim(name, node=node, devices=(f"neuron-device-{chip}",), users=(name,)))
