"""Nodes that are allocated to a NeuronUltraServerWorkload: what they publish, and whose claims they prepare."""

from dataclasses import replace
from typing import Any

import pytest
from neuron_dra_driver.allocations.grants import grant
from neuron_dra_driver.errors import ClaimError
from neuron_dra_driver.names import WORKLOAD_ID
from neuron_dra_driver.node import SimulatedNode, from_neuron_node, standalone
from neuron_dra_driver.records.checkpoint import Entry

SPEC = {
    "instanceType": "trn2u.48xlarge",
    "ultraServer": {"id": "u5wy80u0o2saugxy", "size": 4, "node": 1},
    "devices": "both",
}


def node(workload: str | None) -> SimulatedNode:
    return replace(standalone(name="worker-1", type_name="trn2u.48xlarge", devices="both"), workload_id=workload)


def allocation(make: Any, workload: str | None, **claim: Any) -> Any:
    annotations = {WORKLOAD_ID: workload} if workload else {}
    return make.allocation(make.claim(devices={"n": ["neuron-node"]}, annotations=annotations, **claim))


def test_every_device_of_the_node_carries_the_workload_id() -> None:
    tagged = from_neuron_node({"metadata": {"name": "worker-1"}, "spec": {**SPEC, "workloadID": "train"}})
    assert {device["attributes"]["workloadId"]["string"] for device in tagged.offer.devices} == {"train"}
    free = from_neuron_node({"metadata": {"name": "worker-1"}, "spec": SPEC})
    assert not any("workloadId" in device["attributes"] for device in free.offer.devices)


@pytest.mark.parametrize("workload", ["train", None])
def test_a_claim_of_the_nodes_workload_is_prepared(make: Any, workload: str | None) -> None:
    assert grant(allocation(make, workload), node(workload)).requests


@pytest.mark.parametrize(
    ("claims", "nodes", "says"),
    [
        (
            "train",
            "other",
            r"^claim team/mine: the claim is for nodes of .* train, and .* the one with other: delete",
        ),
        ("train", None, r"allocated to none \(any more\): delete the pod"),
        (
            None,
            "train",
            r"allocated to the .* train, and the claim is not made from its ResourceClaimTemplate: claim",
        ),
    ],
)
def test_one_of_another_is_refused_in_a_sentence(make: Any, claims: str | None, nodes: str | None, says: str) -> None:
    with pytest.raises(ClaimError, match=says):
        grant(allocation(make, claims), node(nodes))


def test_admin_access_sees_every_node(make: Any) -> None:
    assert grant(allocation(make, None, admin=True), node("train")).requests


def test_what_is_prepared_stays_when_the_node_changes_hands(make: Any) -> None:
    asked = allocation(make, "train")
    held = grant(asked, node("train")).held
    record = Entry(asked.uid, asked.namespace, asked.name, held, runtime="tree")
    assert grant(asked, node("other"), before=record).requests
