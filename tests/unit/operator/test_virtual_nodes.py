"""Pools with a count make nodes, and take them away again."""

import json
from typing import Any

import pytest
from neuron_operator import kube, names
from neuron_operator.topology import ultraservers

Json = dict[str, Any]

OWNER = {"apiVersion": names.API_VERSION, "kind": "NeuronNodePool", "controller": True}


@pytest.fixture
def fleet_pool(cluster: Any, pool: Any) -> Any:
    """Puts a pool of virtual nodes, or changes it."""

    def put(count: int, name: str = "big", **spec: Any) -> Json:
        made = pool(name, **{"instanceType": "trn2u.48xlarge", "count": count, **spec})
        made["metadata"]["uid"] = cluster.of(kube.POOLS).get(name, {"metadata": {}})["metadata"].get("uid", f"u-{name}")
        return dict(cluster.put(kube.POOLS, made))

    return put


@pytest.fixture(autouse=True)
def created_labels(cluster: Any, managed_fields: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server notes who created a node's labels."""
    plain = cluster.create

    async def create(resource: kube.Resource, body: Json) -> Json:
        if resource == kube.NODES:
            labels = body["metadata"]["labels"]
            metadata = {**body["metadata"], "managedFields": [managed_fields(names.FIELD_MANAGER, labels)]}
            body = {**body, "metadata": metadata}
        return dict(await plain(resource, body))

    async def merge(resource: kube.Resource, name: str, body: Json, *, namespace: str | None = None) -> Json:
        merged = await plain_merge(resource, name, body, namespace=namespace)
        if resource == kube.NODES:
            merged["metadata"]["managedFields"] = [managed_fields(names.FIELD_MANAGER, merged["metadata"]["labels"])]
            merged = cluster.put(resource, merged)
        return dict(merged)

    plain_merge = cluster.merge
    monkeypatch.setattr(cluster, "create", create)
    monkeypatch.setattr(cluster, "merge", merge)


def conditions(cluster: Any, pool: str = "big") -> dict[str, Json]:
    return {found["type"]: found for found in cluster.of(kube.POOLS)[pool]["status"]["conditions"]}


async def test_a_pool_makes_its_nodes_complete_and_with_one_write_each(
    cluster: Any, settle: Any, fleet_pool: Any
) -> None:
    made = fleet_pool(8)
    await settle(cluster)
    nodes = cluster.of(kube.NODES)
    assert sorted(nodes) == [f"big-{number}" for number in range(8)]
    assert [write for write in cluster.writes if "nodes/big-3" in write] == [
        "create nodes/big-3",
        "apply neuronnodes/big-3",
    ]
    node = nodes["big-3"]
    assert node["metadata"]["ownerReferences"] == [{**OWNER, "name": "big", "uid": made["metadata"]["uid"]}]
    assert (
        node["metadata"]["labels"].items()
        >= {
            "type": "kwok",
            "kubernetes.io/hostname": "big-3",
            "node.kubernetes.io/instance-type": "trn2u.48xlarge",
            "neuron-sim.dev/pool": "big",
            "neuron-sim.dev/ultraserver-node": "3",
        }.items()
    )
    assert node["spec"]["taints"] == [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]
    assert node["status"]["capacity"]["cpu"] == "192"
    assert conditions(cluster)["NodesMade"]["status"] == "True"


async def test_virtual_nodes_form_ultraservers_and_offer_chips_only(cluster: Any, settle: Any, fleet_pool: Any) -> None:
    fleet_pool(8)
    await settle(cluster)
    neuron_nodes = cluster.of(kube.NEURON_NODES)
    joined = ultraservers(neuron_nodes.values())
    assert [
        sorted(found.members.values()) for found in sorted(joined, key=lambda found: sorted(found.members.values()))
    ] == [
        ["big-0", "big-1", "big-2", "big-3"],
        ["big-4", "big-5", "big-6", "big-7"],
    ]
    spec = neuron_nodes["big-0"]["spec"]
    assert (spec["partitions"], spec["devices"], spec["resources"]) == ("none", "chips", "DRA")
    assert neuron_nodes["big-0"]["metadata"]["labels"][names.LABEL_VIRTUAL] == "true"


async def test_nodes_of_other_types_share_network_nodes_by_four(cluster: Any, settle: Any, fleet_pool: Any) -> None:
    fleet_pool(6, instanceType="trn2.48xlarge")
    await settle(cluster)
    closest = [cluster.of(kube.NEURON_NODES)[f"big-{n}"]["spec"]["networkNodes"][-1] for n in range(6)]
    assert len(set(closest[:4])) == len(set(closest[4:])) == 1
    assert closest[3] != closest[4]


async def test_the_last_nodes_go_first_and_all_go_with_the_pool(cluster: Any, settle: Any, fleet_pool: Any) -> None:
    fleet_pool(8)
    await settle(cluster)
    before = {name: item["metadata"]["uid"] for name, item in cluster.of(kube.NODES).items()}
    fleet_pool(5)
    await settle(cluster)
    assert {name: item["metadata"]["uid"] for name, item in cluster.of(kube.NODES).items()} == {
        f"big-{number}": before[f"big-{number}"] for number in range(5)
    }
    assert sorted(cluster.of(kube.NEURON_NODES)) == sorted(cluster.of(kube.NODES))
    cluster.drop(kube.POOLS, "big")
    await settle(cluster)
    assert not cluster.of(kube.NODES)
    assert not cluster.of(kube.NEURON_NODES)


async def test_nodes_are_deleted_after_what_they_offer(cluster: Any, settle: Any, fleet_pool: Any) -> None:
    fleet_pool(1)
    await settle(cluster)
    cluster.drop(kube.POOLS, "big")
    cluster.writes.clear()
    await settle(cluster)
    assert [write for write in cluster.writes if write.startswith("delete")] == [
        "delete neuronnodes/big-0",
        "delete nodes/big-0",
    ]


async def test_a_foreign_node_of_the_name_is_left_alone_and_named(
    cluster: Any, settle: Any, fleet_pool: Any, node: Any
) -> None:
    cluster.put(kube.NODES, node("big-1"))
    fleet_pool(3)
    await settle(cluster)
    assert "ownerReferences" not in cluster.of(kube.NODES)["big-1"]["metadata"]
    assert sorted(cluster.of(kube.NEURON_NODES)) == ["big-0", "big-2"]
    found = conditions(cluster)["NodesMade"]
    assert (found["status"], found["reason"]) == ("False", "NamesTaken")
    assert "big-1" in found["message"]
    cluster.drop(kube.NODES, "big-1")
    await settle(cluster)
    assert conditions(cluster)["NodesMade"]["status"] == "True"


async def test_nodes_of_a_pool_that_was_made_anew_are_made_anew(cluster: Any, settle: Any, fleet_pool: Any) -> None:
    fleet_pool(2)
    await settle(cluster)
    cluster.drop(kube.POOLS, "big")
    again = fleet_pool(2)
    again["metadata"]["uid"] = "another"
    cluster.put(kube.POOLS, again)
    await settle(cluster)
    owners = [item["metadata"]["ownerReferences"][0]["uid"] for item in cluster.of(kube.NODES).values()]
    assert owners == ["another", "another"]


async def test_real_pools_do_not_take_virtual_nodes(
    cluster: Any, settle: Any, fleet_pool: Any, pool: Any, node: Any
) -> None:
    cluster.put(kube.POOLS, pool("default", created="2025-01-01T00:00:00Z"))
    cluster.put(kube.NODES, node("worker"))
    fleet_pool(2)
    await settle(cluster)
    members = {name: item["spec"]["pool"] for name, item in cluster.of(kube.NEURON_NODES).items()}
    assert members == {"worker": "default", "big-0": "big", "big-1": "big"}


async def test_labels_follow_when_the_pool_becomes_something_else(cluster: Any, settle: Any, fleet_pool: Any) -> None:
    fleet_pool(1)
    await settle(cluster)
    fleet_pool(1, instanceType="trn1.32xlarge")
    await settle(cluster)
    labels = cluster.of(kube.NODES)["big-0"]["metadata"]["labels"]
    assert labels["node.kubernetes.io/instance-type"] == "trn1.32xlarge"
    assert labels["type"] == "kwok"
    assert names.LABEL_ULTRASERVER not in labels


@pytest.mark.parametrize(
    ("name", "spec", "reason"),
    [
        ("big", {"nodeSelector": {"matchLabels": {"a": "b"}}}, "CountAndNodeSelector"),
        ("big", {"resources": "DevicePlugin"}, "UnsupportedResources"),
        ("b" * 60, {}, "NameTooLong"),
    ],
)
async def test_what_virtual_nodes_cannot_be(
    cluster: Any, settle: Any, fleet_pool: Any, name: str, spec: Json, reason: str
) -> None:
    fleet_pool(2, name, **spec)
    await settle(cluster)
    assert conditions(cluster, name)["Accepted"]["reason"] == reason
    assert not cluster.of(kube.NODES)


async def test_taints_are_the_pools(cluster: Any, settle: Any, fleet_pool: Any) -> None:
    fleet_pool(1, taints=[])
    fleet_pool(1, "mine", taints=[{"key": "a", "value": "b", "effect": "NoExecute"}])
    await settle(cluster)
    nodes = cluster.of(kube.NODES)
    assert nodes["big-0"]["spec"]["taints"] == []
    assert nodes["mine-0"]["spec"]["taints"] == [{"key": "a", "value": "b", "effect": "NoExecute"}]
    assert json.dumps(nodes)  # plain values only
